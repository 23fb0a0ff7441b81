"""Judges the scale, the speed and the polarity of groups of records."""
