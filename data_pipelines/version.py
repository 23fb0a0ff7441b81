"""States the version of the project, which no other place does."""

__version__ = "0.1.0"
