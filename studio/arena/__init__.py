"""Blind comparison: prompts, checks of answers, trials and what they show."""
