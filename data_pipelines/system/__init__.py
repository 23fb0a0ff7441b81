"""Parts that data sets are built on: atomic directories, worker processes, memory maps, remote files and safe names."""
