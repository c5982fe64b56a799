"""Documents over HTTP: bases, their files and pieces, and answers from them."""
