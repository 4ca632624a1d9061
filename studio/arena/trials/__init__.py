"""A trial from its design to its answers, and what its project has spent."""
