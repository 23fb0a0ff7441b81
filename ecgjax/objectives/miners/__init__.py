"""Miners, which choose the positives and negatives of each anchor that a loss uses."""
