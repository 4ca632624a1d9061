"""The Blind tab, and the page that only rates."""
