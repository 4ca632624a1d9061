"""Engines that answer prompts: vLLM, a server elsewhere, or transformers in a process."""
