"""Conversations: trees of turns in one database for all users; answering, search, export and import."""
