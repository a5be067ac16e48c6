"""The version of this release, for those parts that the package itself imports."""

__version__ = "0.1.0"
