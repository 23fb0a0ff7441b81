"""Evaluation: probe tasks, metrics, patient bootstrap, comparison with the mandatory baselines, report."""
