"""What is wrong with a mesh, and what to do: `hotmesh doctor`.

facts       what is known of server, namespace and apps at one moment
reading     asks for it, as far as the login may
findings    of facts, one pure function for each thing that can be wrong
"""
