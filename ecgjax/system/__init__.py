"""Access to the machine that a run uses: atomically written files, memory, versions."""
