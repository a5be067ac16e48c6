-- find_listeners: the part of commit_steps that looks for members elsewhere who want what is announced; called by it.
-- Returns  members, and for each a topic of p_published that it subscribed to, by name or by pattern; both null: nobody.
create or replace function mesh.find_listeners(
    p_app text, p_member text, p_published text[], p_now timestamptz, out listeners text[], out heard text[]
) language plpgsql as $$
begin
    select array_agg(f.member), array_agg(f.topic) into listeners, heard
      from (select s.member, s.topic from mesh.subscription as s
             where s.app_id = p_app and s.topic = any (p_published) and not s.by_pattern
               and s.expires_at > p_now and s.member <> p_member
             union
            select s.member, t.topic
              from mesh.subscription as s
              join unnest(p_published) as t(topic) on t.topic like mesh.like_pattern(s.topic)
             where s.app_id = p_app and s.by_pattern and s.expires_at > p_now and s.member <> p_member) as f;
end
$$;
