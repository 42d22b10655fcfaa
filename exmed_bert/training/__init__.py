"""Training: the run's folder, whole checkpoints, metrics, tracking, and the pretraining step itself."""
