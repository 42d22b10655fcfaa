"""Prediction tasks and their cohorts: patients, prediction times, labels and splits."""
