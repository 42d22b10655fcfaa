"""Embeddings of patients: histories up to a day, pooled hidden states, files of them, and maps."""
