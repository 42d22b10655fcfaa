"""ClinVec embeddings of medical codes: reading the published files, resizing, initializing a model's codes."""
