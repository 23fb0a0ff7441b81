"""Commands that start runs: several processes, clusters, ablations."""
