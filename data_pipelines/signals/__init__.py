"""From a recording's samples to the stored signal: checks, filters, window, recipe."""
