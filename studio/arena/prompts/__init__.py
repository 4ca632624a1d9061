"""What models are asked: prompts, files of them, character cards."""
