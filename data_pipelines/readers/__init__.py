"""Readers that turn one file of a format into a signal with its unit, rate, lead names and metadata."""
