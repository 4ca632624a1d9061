"""What a recipe does, told from Gram matrices: exact, estimated, kept, drawn and said in words."""
