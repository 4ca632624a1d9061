"""What the votes show: evidence, power, strengths, the verdict in words, and reports."""
