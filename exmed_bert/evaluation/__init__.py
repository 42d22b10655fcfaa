"""What a model is worth: figures with intervals, calibration, baselines, attributions, and the page that shows them."""
