"""Objectives over the global batch: a relation says what a pair is, a loss folds over tiles of it."""
