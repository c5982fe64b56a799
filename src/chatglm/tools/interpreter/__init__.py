"""The code interpreter: runs a model's Python code in a sandbox, with a kernel for each conversation."""
