"""Measurements of a recording: beats, wave boundaries, intervals, the physiology vector."""
