"""Augmentations on the accelerator, keyed by (seed, step, global row): see `views` for their order and their config."""
