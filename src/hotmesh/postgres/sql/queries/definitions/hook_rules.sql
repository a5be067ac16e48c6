-- hook_rules: the first rule on a hook topic ($2) of every version of an app ($1), each different one once.
select distinct h.rule ->> 'to' as "to", (h.rule #> '{conditions,match,0,actual}')::text as actual
  from mesh.app_version as v
 cross join lateral json_array_elements(v.graph -> 'document' -> 'app' -> 'graphs') as g(graph)
 cross join lateral (select g.graph -> 'hooks' -> $2 -> 0 as rule) as h
 where v.app_id = $1 and h.rule #> '{conditions,match,0,actual}' is not null
