"""Memory: the experience store over the record, its Chroma index and search."""
