"""Pairs of rows of the global batch: which belong together, how far apart they are, how they are gone through."""
