"""Remembers. Tables, stored functions and queries; the only package that imports the driver."""
