"""What a file says about its own samples, set against what was declared: rate, unit, scale, leads, axes."""
