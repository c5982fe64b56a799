"""TENSORS: the two architectures, as `transformers` models with the official parameter names."""
