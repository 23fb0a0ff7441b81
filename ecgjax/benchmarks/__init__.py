"""Benchmarks of the training step, of objectives and of embedding, beside measured ceilings."""
