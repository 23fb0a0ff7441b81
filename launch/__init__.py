"""Starting runs: several processes, clusters, ablations."""
