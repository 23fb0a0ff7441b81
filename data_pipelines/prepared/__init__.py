"""Prepared data sets: card, index, splits, joined sets, copies, and what was told of their records."""
