"""Prediction tasks and cohorts: who is predicted, when, and with which label."""
