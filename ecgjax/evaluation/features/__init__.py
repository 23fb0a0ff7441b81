"""Features of labelled recordings: embeddings of frozen encoders, and plain measurements."""
