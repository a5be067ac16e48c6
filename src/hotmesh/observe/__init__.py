"""The one read side: what the commands, `HotMesh`, tests and any page that shows jobs know of what is in the tables.

Every function takes an `Observer`, runs queries by name (`postgres/sql/queries`) and gives frozen data with typed fields.
Nothing here changes a row. What needs the compiled plans of an app takes them as an argument (`PlanOf`).

    observer       what the queries run on: `Observer(database)`, or `observing(connection, namespace)`
    apps           the apps of a namespace, and plans for those who keep none
    jobs           jobs in short, whole and raw; search fields
    activities     what the activities of a job left
    obligations    what a job waits for
    explain/       why it does not move
    doctor/        what is wrong with the mesh as a whole
    export         a job as one document
    dead_letters   what was given up
    statistics     what graphs count about their jobs
    queues         how much waits, and for how long
    reader         all that can be read of the jobs of one app, bound to its plans

Whether a job runs, is complete, or has failed is decided in one place, `mesh.job_state`; what it waits for in another,
`mesh.obligations`.
"""
