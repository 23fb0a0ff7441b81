"""The machine below a run: files that appear whole, memory, versions."""
