"""Configs: config files by name, their variants, flags, and the resolved copy in a run's folder."""
