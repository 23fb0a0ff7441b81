"""Judges whether the scale, the sampling rate and the polarity of groups of records are plausible."""
