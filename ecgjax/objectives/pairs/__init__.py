"""Pairs of rows of the global batch: relations, distances, and folds over them in tiles."""
