"""The machine below a data set: directories that appear whole, workers, memory maps, remote files, safe names."""
