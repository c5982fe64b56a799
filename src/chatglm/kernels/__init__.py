"""Linear layers over packed weights and the native decoder. torch (`reference.py`) defines correct; native code is
fast.
"""
