"""What a model may call: Python functions and their schemas. Nothing that a model writes is executed as code."""
