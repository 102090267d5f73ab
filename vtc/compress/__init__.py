"""Token compressors: from a vision encoder's patch features to V tokens of the LLM's width."""
