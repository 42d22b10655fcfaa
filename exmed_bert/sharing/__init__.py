"""Copies of models that can be given away."""
