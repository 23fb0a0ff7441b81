"""Health of a pretraining by labels that nothing is trained with: the records, their vote, and its place in a run."""
