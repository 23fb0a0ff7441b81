"""Makes the simulated cohort (`cohort.py`) from draws, states, rhythm, waves and noise."""
