"""What a machine can say of an answer: which constraints it keeps."""
