"""The deployed versions of an app, from the file to the compiled plan."""
