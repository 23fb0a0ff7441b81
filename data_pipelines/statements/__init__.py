"""Statements of files about their samples, compared with the declaration: rate, unit, scale, leads, axes."""
