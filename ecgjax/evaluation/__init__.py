"""Evaluation of a representation: features, models that are fitted on them, and metrics of the models' predictions."""
