"""vLLM as the engine that answers: it runs under a Python of its own, beside vtc's."""
