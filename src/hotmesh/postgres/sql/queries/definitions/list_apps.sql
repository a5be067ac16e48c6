-- list_apps: the apps of the namespace.
select a.app_id from mesh.app as a order by a.app_id
