"""Benchmarks of the training step, of objectives and of embedding, each beside measured ceilings."""
