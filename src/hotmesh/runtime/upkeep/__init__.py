"""What has to be done now and then: retention, stalled logins; the commands of an administrator."""
