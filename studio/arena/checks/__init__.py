"""What a machine can say of an answer: constraints kept or not, and its health."""
