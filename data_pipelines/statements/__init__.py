"""What files state about their samples (rate, unit, scale, leads, axes), compared with the user's declaration."""
