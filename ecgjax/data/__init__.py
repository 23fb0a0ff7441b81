"""Recordings and their metadata: labels, tasks, groups of patients, samplers."""
