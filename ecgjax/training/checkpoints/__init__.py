"""Checkpoints of a run: written side by side with training, kept by rules, and checked leaf by leaf."""
