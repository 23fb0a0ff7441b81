"""The machine that a run uses: files that appear complete or not at all, memory, versions."""
