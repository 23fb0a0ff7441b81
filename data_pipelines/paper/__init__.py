"""Draws recordings on ECG paper."""
