"""Training: the run's folder, whole checkpoints, metrics, tracking, and the pretraining step itself."""

import os

# Before MLflow is imported anywhere below: no network at run time.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
