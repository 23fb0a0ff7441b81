"""Miners: which positives and negatives of an anchor a loss looks at."""
