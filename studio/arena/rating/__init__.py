"""Raters at work: sheets, sittings, ratings.csv, and trials packed to be rated elsewhere."""
