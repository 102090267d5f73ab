"""vtc: how large an LLM and how few visual tokens under an inference budget."""

__version__ = "0.1.0"
