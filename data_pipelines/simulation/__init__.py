"""What the simulated cohort (`data_pipelines.simulation.cohort`) is made of: draws, states, rhythm, waves, noise."""
