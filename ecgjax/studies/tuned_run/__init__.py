"""What a fine-tuning run begins with, and the model that it ends with."""
