"""ClinVec embeddings of medical codes: reading the published files, resizing, initialising a model's codes."""
