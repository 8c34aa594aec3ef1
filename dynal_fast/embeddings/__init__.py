"""Embeddings from files as people have them: one small reader for each family of formats."""
