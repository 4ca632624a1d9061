"""The Merge tab: tuning, the recipe library, and merges under way."""
