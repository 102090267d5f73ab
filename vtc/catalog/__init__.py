"""Facts shipped as data files, each with its source: LLMs, published measurements, laws."""
