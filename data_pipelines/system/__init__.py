"""Provides what data sets rest on: directories that appear whole, workers, memory maps, remote files and safe names."""
