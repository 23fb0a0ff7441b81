"""Equal and nearly equal recordings: signatures, candidates, comparison."""
