-- scrub_index: forget which jobs are listed under facets; the arguments are those of measure_index.
delete from mesh.measure
 where app_id = $1 and topic = $2 and job_key = $3 and measure = 'index'
   and ($4::text[] is null or slice = any($4))
   and ($5::text[] = '{}' or facet || ':' || value = any($5))
