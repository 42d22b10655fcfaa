"""Prediction tasks: one module per task, entered in `registry`."""
