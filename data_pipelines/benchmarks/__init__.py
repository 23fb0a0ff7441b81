"""Benchmarks of reading, compared with a bare memory map and with the disk."""
