"""What a trial shows: evidence, power, strengths, health, the verdict in words, and reports."""
