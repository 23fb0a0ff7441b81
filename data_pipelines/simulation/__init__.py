"""Simulates a cohort of patients with ECGs (`cohort.py`) from random draws, states, rhythm, waves and noise."""
