"""Recordings and what is known of them: labels, tasks, groups of patients, samplers."""
