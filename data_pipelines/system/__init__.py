"""Parts that data sets are built on: atomic directories, worker processes, memory maps and safe names."""
