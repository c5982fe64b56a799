"""`/v1/knowledge`: bases, their files and pieces, search, answers, summaries, who may do what."""
