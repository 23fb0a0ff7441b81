"""Detection of leaks: which records of an evaluation, or records of which patients, an encoder was pretrained on."""
