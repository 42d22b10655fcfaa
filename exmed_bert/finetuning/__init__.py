"""Fine-tuning: from a pretrained model and a task to a model of the outcome and its results."""
