"""Read embeddings from files: one small reader for each family of formats."""
