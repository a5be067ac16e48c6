"""Worker logins: roles that may take and answer work of some topics, and nothing else.

credentials   what a login is: its name, its password, its bounds
roles         logins are made, changed, revoked and listed
scram         what Postgres stores instead of a password
secured       the `Store` of a member that uses such a login
"""
