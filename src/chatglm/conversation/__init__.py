"""Conversations: turns as a tree, kept in one database for all users, searched, exported and imported."""
