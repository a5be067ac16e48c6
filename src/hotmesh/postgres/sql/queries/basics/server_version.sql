-- server_version: that of the server, such as `18.1 (Debian 18.1-1)`.
select current_setting('server_version') as server_version
