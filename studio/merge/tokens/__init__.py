"""Merging by token: vocabularies beside each other, and rows mixed by what they mean."""
