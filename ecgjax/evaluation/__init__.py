"""Evaluation of a representation: what goes in, which models are fitted on it, how they are judged."""
