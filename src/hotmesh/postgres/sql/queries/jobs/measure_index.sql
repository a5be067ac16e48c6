-- measure_index: the jobs of a graph that are listed under facets ($5, `name:value`; none: all); the rest as for measures.
select distinct slice, facet || ':' || value as facet, job_id
  from mesh.measure
 where app_id = $1 and topic = $2 and job_key = $3 and measure = 'index'
   and ($4::text[] is null or slice = any($4))
   and ($5::text[] = '{}' or facet || ':' || value = any($5))
 order by 1, 2, 3
