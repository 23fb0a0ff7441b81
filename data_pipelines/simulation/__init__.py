"""What the simulated cohort (`data_pipelines.simulator`) is made of: draws, states, rhythm, waves, noise."""
