"""Streams of global batches: random orders, samplers, and batches read ahead."""
