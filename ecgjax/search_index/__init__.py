"""An index of embeddings: how it is built of tables of embeddings, and how exact neighbours are found in it."""
