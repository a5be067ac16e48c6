"""Worker logins: roles that may take and answer work of some topics, and nothing else."""
