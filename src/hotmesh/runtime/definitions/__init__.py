"""The deployed versions of an app, from the file to what decides.

graph_files   where the text of a graph comes from: a file, a text, an open stream
program       what the engine asks for steps: a version of an app, ready to run
plans         the versions that this process has read, never older than the database's
"""
