"""Measures a recording: beats, wave boundaries, intervals and the physiology vector."""
