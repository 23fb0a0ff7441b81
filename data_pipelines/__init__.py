"""From raw recordings to global batches: NumPy only, no model code."""
