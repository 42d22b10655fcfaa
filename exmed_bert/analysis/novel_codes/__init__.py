"""Novel codes: their embeddings among those of their relatives, and how well a model predicts them when masked."""
