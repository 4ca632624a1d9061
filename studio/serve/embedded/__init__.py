"""An engine for machines without vLLM: transformers, in a process of its own."""
