-- token_key: what tokens of activities are signed with.
select encode(sha256(convert_to(s.value || ':activity-token', 'UTF8')), 'hex') from mesh.secret as s
