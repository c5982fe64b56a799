"""Training: data, methods, pre-training by blank infilling."""
