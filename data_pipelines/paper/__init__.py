"""Recordings drawn on ECG paper."""
