"""Worker logins: roles that may take and answer work of some topics, and nothing else.

login         what such a login may do, as the database says
work          the work queue of a member that uses such a login; which queue a database has
sessions      those that stand still are ended
credentials   what a login is: its name, its password, its bounds
roles         logins are made, changed, revoked and listed
scram         what Postgres stores instead of a password
"""
