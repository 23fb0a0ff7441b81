"""Streams global batches: random orders, samplers, and batches that are read ahead."""
