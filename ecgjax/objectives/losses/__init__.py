"""Losses over the global batch, a module for each published name or family."""
