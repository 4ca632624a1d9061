"""Engines as processes of this machine: started, watched, switched, stopped, found again."""
