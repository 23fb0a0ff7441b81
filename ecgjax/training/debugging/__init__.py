"""Runs that look for a fault or measure speed, and train no model."""
