"""Dry runs: the step of a run compiled ahead for accelerators that are not here, and what it asks of them."""
