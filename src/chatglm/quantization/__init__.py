"""Fewer bits: weights of 4 or 8 bits in place of 16, in any `nn.Module`, from outside."""
