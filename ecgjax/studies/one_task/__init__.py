"""One question, answered by the pretrained encoder and by what stands beside it on the same records."""
