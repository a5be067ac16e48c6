"""What has to be done now and then, by itself or by an administrator.

In reading order:

    dba              the commands of an administrator: tables up to date, old rows deleted
    retention        deletes by itself what is over, one process of an app at a time
    stalled_logins   ends sessions of worker logins that could hold up engines
"""
