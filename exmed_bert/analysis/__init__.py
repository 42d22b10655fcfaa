"""Analyses of a pretrained model."""
