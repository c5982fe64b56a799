"""Quantisation: weights of 4 or 8 bits in place of 16, for any `nn.Module`."""
