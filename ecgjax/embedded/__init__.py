"""Embeddings of many recordings: what they are read from, what is measured beside them, and the table they go to."""
