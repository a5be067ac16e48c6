"""The processes of a mesh: who is there, at which rate, on which version."""
