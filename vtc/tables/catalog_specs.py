"""The tables of the catalog: LLMs, encoders, GPUs. Part of `vtc.tables.specs`.

A file of one's own (docs/recommend.md) has the same columns.
"""

from vtc.tables.spec import Column, Table

_SOURCE = Column("source", "string", "where the figures are from")

LLMS = Table(
    "llms",
    1,
    "LLMs of the catalog",
    (
        Column("model", "string", "name of the LLM"),
        Column("family", "string", "family: its sizes share a law", nullable=True),
        Column("n_params", "int", "parameters that the name states, the N of the published law"),
        Column("n_params_total", "int", "all parameters", nullable=True),
        Column(
            "n_params_nonembedding",
            "int",
            "without input embedding and untied head",
            nullable=True,
        ),
        Column("n_layers", "int", "decoder layers"),
        Column("hidden_size", "int", "width"),
        Column("n_heads", "int", "query heads"),
        Column("n_kv_heads", "int", "heads of keys and values"),
        Column("head_dim", "int", "width of a head"),
        Column("intermediate_size", "int", "width of the gated feed-forward layers"),
        Column("vocab_size", "int", "rows of the embedding, padding included"),
        Column("tied", "bool", "the LM head is the embedding"),
        Column("window", "int", "tokens that windowed layers see; 0: none", "tokens", True),
        Column("n_windowed", "int", "layers that see a window alone", nullable=True),
        _SOURCE,
    ),
)

ENCODERS = Table(
    "encoders",
    1,
    "vision encoders of the catalog",
    (
        Column("encoder", "string", "id on the Hugging Face hub"),
        Column("n_layers", "int", "layers"),
        Column("hidden_size", "int", "width"),
        Column("n_heads", "int", "heads"),
        Column("intermediate_size", "int", "width of the feed-forward layers"),
        Column("image_size", "int", "side of the square image", "pixels"),
        Column("patch_size", "int", "side of a patch", "pixels"),
        Column("class_token", "bool", "a class token stands before the patches"),
        Column("n_params", "int", "parameters, a pooling head left out", nullable=True),
        _SOURCE,
    ),
)

GPUS = Table(
    "gpus",
    1,
    "GPUs of the catalog",
    (
        Column("gpu", "string", "what --gpu calls it"),
        Column("name", "string", "what its driver calls it", nullable=True),
        Column("memory_gb", "float", "memory on its label", "GiB"),
        Column("bandwidth_gb_s", "float", "memory bandwidth", "GB/s"),
        Column("bf16_tflops", "float", "dense bf16 peak, summed in fp32", "TFLOP/s"),
        Column("compute_efficiency", "float", "share of that peak that is reached", "share", True),
        Column(
            "bandwidth_efficiency", "float", "share of the bandwidth that is reached", "share", True
        ),
        _SOURCE,
    ),
)
