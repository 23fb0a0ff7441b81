"""Benchmarks of reading, beside a bare memory map and the disk."""
