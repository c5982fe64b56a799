"""Linear layers over packed weights, and the native decoder. `reference.py` defines the correct results."""
