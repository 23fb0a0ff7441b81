"""Metrics of predictions, with intervals over patients, in groups and at thresholds."""
