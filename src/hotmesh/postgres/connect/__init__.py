"""Connections: where they come from, how they are kept, shared and replaced.

options     the forms in which users write where their database is
source      `ConnectionSource`: finds it, connects to it, looks for a pooler in the way
link        `Link`: a dedicated connection, made again after a loss
session     what a session has to be like, whatever its owner has set
driver      the driver's connection, and what is asked of it beside statements
failures    what the driver's errors mean, and how long to pause after one
pooler      finds out what stands between this process and Postgres
sharing     what members of one process share by their task queue
native      `PostgresConnection`: a connection for users, to try settings with
caller      one statement on a connection of the user's, of whatever library
"""
