"""Pretrained encoders that other work goes on from: of a run, or of an exported folder."""
