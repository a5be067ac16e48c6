-- tell: send notifications. $1 channels, $2 what is told on each.
-- Nothing is written, so that nothing waits for the disk.
select mesh.hint(n.channel, n.notice) from unnest($1::text[], $2::text[]) as n(channel, notice)
