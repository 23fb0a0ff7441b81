"""Training with labels, of a random or a pretrained encoder."""
