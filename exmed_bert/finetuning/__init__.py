"""Fine-tuning: from a pretrained model and a cohort to an outcome model and its results."""
