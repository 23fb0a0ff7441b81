"""Tasks that a pretraining predicts beside its objective: labels or measured waves."""
