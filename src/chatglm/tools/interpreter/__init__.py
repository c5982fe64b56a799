"""A model's Python code, run where it can harm nobody: a kernel for each conversation, in a sandbox."""
