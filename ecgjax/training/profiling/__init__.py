"""Traces of steps: what the devices did, operation by operation."""
