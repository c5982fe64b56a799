"""Answers from the user's own documents: reading, splitting, searching, answering with the passages it rests on."""
