"""The VLM: vision tower, compressor and LLM on transformers' Llava classes."""
