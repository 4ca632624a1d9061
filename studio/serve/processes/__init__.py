"""Engines that the studio keeps: processes of this machine, and servers that run elsewhere."""
