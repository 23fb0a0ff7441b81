"""Models fitted on features: linear probes, boosted trees, cross-validated probes."""
