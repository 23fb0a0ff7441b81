"""Pretraining ECG encoders in JAX."""
