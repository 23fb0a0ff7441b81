"""Prepared data sets: card, index, splits, joined sets, copies, and remarks on their records."""
