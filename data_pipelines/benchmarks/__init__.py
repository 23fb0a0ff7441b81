"""Benchmarks reading beside a bare memory map and the disk."""
