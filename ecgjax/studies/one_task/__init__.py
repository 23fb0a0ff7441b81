"""One task, for which the pretrained encoder and the baselines predict the same records."""
