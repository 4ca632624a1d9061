"""Raters at work: sheets, sittings, ratings.csv, amendments, and packs to be rated elsewhere."""
