"""Services beside the run that keep its metrics: Weights & Biases and MLflow, where they are asked for."""
