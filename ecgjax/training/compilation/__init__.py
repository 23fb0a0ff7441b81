"""Compiled programs of a run: the step, and what is kept of them for restarts."""
