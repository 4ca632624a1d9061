"""Plans: what a model takes of each GPU, which ways hold it, and what they cost."""
