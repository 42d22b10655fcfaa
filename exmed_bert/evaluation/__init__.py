"""Evaluation of models: metrics with intervals, calibration, baselines, attributions, and their report."""
