"""Pretraining: a run's parts, its compiled step, its loop, its checkpoints and its telemetry."""
