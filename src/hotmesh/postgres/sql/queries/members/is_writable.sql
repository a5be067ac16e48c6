-- is_writable: one row, unless this is a server that a failover left behind.
select 1 where current_setting('transaction_read_only') = 'off'
