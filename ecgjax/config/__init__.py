"""Configs: files by name, variants, flags, and the resolved copy in a run's folder."""
