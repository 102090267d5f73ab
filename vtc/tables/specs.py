"""The tables that steps exchange. docs/tables.md is generated from this file."""

from vtc.tables.catalog_specs import ENCODERS, GPUS, LLMS
from vtc.tables.comparison_specs import COMPARISON
from vtc.tables.cost_specs import COSTS, RECOMMENDATION
from vtc.tables.law_specs import FORMS, LAW, PROFILE
from vtc.tables.plan_specs import PLAN
from vtc.tables.spec import Column, Table

_BACKBONE = (
    Column("backbone", "string", "name of the LLM"),
    Column("family", "string", "family of the LLM: sizes of one family share a law", nullable=True),
    Column("n_params", "int", "nominal parameter count of the LLM, the N of the law"),
    Column("n_params_total", "int", "parameters of the LLM, embeddings included", nullable=True),
    Column(
        "n_params_nonembedding",
        "int",
        "parameters of the LLM without input embedding and untied head",
        nullable=True,
    ),
    Column("compressor", "string", "token compressor"),
    Column(
        "compressor_settings",
        "string",
        "its settings, KEY=VALUE sorted by key, that are not its defaults; empty: none",
        nullable=True,
    ),
    Column("visual_tokens", "int", "visual tokens entering the LLM, the V of the law", "tokens"),
    Column(
        "visual_tokens_repeated",
        "int",
        "how often each distinct one of them was fed (--repeat-visual-tokens); empty: once",
        nullable=True,
    ),
    Column(
        "visual_tokens_mean",
        "float",
        "visual tokens of an image in a layer of the LLM, and in its KV cache, the mean over "
        "layers, where some are dropped there; empty: as many as enter",
        "tokens",
        nullable=True,
    ),
    Column(
        "visual_tokens_kept",
        "int",
        "those left in the last layer, and in its KV cache; empty: as many as enter",
        "tokens",
        nullable=True,
    ),
    Column(
        "visual_tokens_trained",
        "bool",
        "the run was trained at this V; false: an elastic one outside its set, or one given a "
        "compressor without training that makes other tokens; empty: nobody knows",
        nullable=True,
    ),
    Column("encoder", "string", "name of the vision encoder", nullable=True),
    Column("seed", "int", "seed of the training", nullable=True),
)

SAMPLES = Table(
    "samples",
    1,
    "clean training or evaluation rows, one a conversation",
    (
        Column("sample_id", "string", "unique identifier of the row"),
        Column("images", "list<string>", "image paths relative to the image root; may be empty"),
        Column("conversations", "list<turn>", "turns in order, each {role, text}"),
        Column(
            "regions",
            "list<region>",
            "what stands where in the first image: {text, x, y}, centres as shares of the width "
            "and height; used by --objective align",
            nullable=True,
        ),
        Column("n_text_tokens", "int", "text tokens, with --llm", "tokens", nullable=True),
    ),
)

REJECTS = Table(
    "rejects",
    2,
    "rows that check-data set aside, or kept with a note",
    (
        Column("source", "string", "file the row came from"),
        Column("row", "int", "position of the row in its file, from 0"),
        Column("sample_id", "string", "identifier of the row, if it has one", nullable=True),
        Column("image", "string", "the image concerned, if one is", nullable=True),
        Column("reason", "string", "why the row was set aside, or what to note about it"),
        Column("kept", "bool", "the row is among the samples all the same"),
    ),
)

PREDICTIONS = Table(
    "predictions",
    1,
    "one row an evaluated item",
    (
        Column("run_id", "string", "the run that answered"),
        *_BACKBONE,
        Column("benchmark", "string", "name of the benchmark"),
        Column("task", "string", "task family: reasoning, ocr or general"),
        Column("metric", "string", "metric that scores the item"),
        Column("chance", "float", "score of the best constant answer", "share", nullable=True),
        Column("item_id", "string", "item within the benchmark"),
        Column("image_id", "string", "image of the item; items of one image are one cluster"),
        Column("question", "string", "the question as asked"),
        Column("references", "list<string>", "accepted answers"),
        Column("choices", "list<string>", "texts of the options A, B, ...", nullable=True),
        Column("category", "string", "category of the item, of a score by categories", "", True),
        Column(
            "group",
            "string",
            "items that are right or wrong together: MME's pairs, MMBench's circles",
            nullable=True,
        ),
        Column("about", "string", "what else the metric reads: a JSON object", nullable=True),
        Column(
            "prediction", "string", "the answer: the generated text, or the likeliest candidate"
        ),
        Column(
            "answered_by",
            "string",
            "generation, or likelihood: the candidate that the run finds likeliest",
            nullable=True,
        ),
        Column("parsed", "string", "the answer the metric read from it"),
        Column("score", "float", "score of the item", "share in [0, 1]"),
        Column("n_text_tokens", "int", "text tokens of the prompt", "tokens"),
        Column("n_generated", "int", "generated tokens", "tokens"),
        Column("parser", "string", "name and version of the parser"),
        Column("prompt_sha", "string", "hash of the prompt template"),
        Column(
            "fault",
            "string",
            "why the item could not be answered (its image does not open); it is scored wrong",
            nullable=True,
        ),
    ),
)

SCORES = Table(
    "scores",
    1,
    "one row a run and benchmark",
    (
        Column("run_id", "string", "the run that was evaluated"),
        *_BACKBONE,
        Column("benchmark", "string", "name of the benchmark"),
        Column("task", "string", "task family: reasoning, ocr or general"),
        Column("metric", "string", "metric"),
        Column("score", "float", "mean score, or what the metric makes of it", "share in [0, 1]"),
        Column("error", "float", "1 - score, the Y of the law", "share in [0, 1]"),
        Column("n_items", "int", "items scored", nullable=True),
        Column("stderr", "float", "standard error of the score, clustered by image", nullable=True),
        Column("chance", "float", "score of the best constant answer", "share", nullable=True),
        Column("parser", "string", "name and version of the parser", nullable=True),
    ),
)

CATEGORIES = Table(
    "categories",
    1,
    "one row a run, benchmark and category: parts of scores, which vtc fit refuses",
    (
        Column("run_id", "string", "the run that was evaluated"),
        *_BACKBONE,
        Column("benchmark", "string", "name of the benchmark"),
        Column("task", "string", "task family: reasoning, ocr or general"),
        Column("metric", "string", "metric"),
        Column("category", "string", "category of the benchmark, as its rows name it"),
        Column("score", "float", "what the metric makes of its items", "share in [0, 1]"),
        Column("error", "float", "1 - score", "share in [0, 1]"),
        Column("points", "float", "the score as the benchmark states it (MME: 0 to 200)", "", True),
        Column("n_items", "int", "items of the category"),
        Column("stderr", "float", "standard error of the score, clustered by image", nullable=True),
        Column("parser", "string", "name and version of the parser", nullable=True),
    ),
)

BENCHMARKS = Table(
    "benchmarks",
    1,
    "the benchmarks of the field that vtc eval knows by name",
    (
        Column("name", "string", "what --benchmark calls it"),
        Column("title", "string", "its name, and the part of it that is asked"),
        Column("task", "string", "task family: reasoning, ocr, or general (in neither average)"),
        Column("metric", "string", "metric"),
        Column("n_rows", "int", "rows of its split"),
        Column("max_new_tokens", "int", "longest answer", "tokens"),
        Column("source", "string", "data set on the Hugging Face hub"),
        Column("former_source", "string", "its former id, tried next", nullable=True),
        Column("config", "string", "config of the data set", nullable=True),
        Column("split", "string", "split"),
        Column("joined", "string", "config that holds the images, and what joins it", "", True),
        Column("prompt", "string", "what is asked, columns in braces"),
        Column("paper", "string", "where it is from"),
    ),
)

COMPRESSORS = Table(
    "compressors",
    1,
    "what each compressor makes of an encoder for an LLM, one row a compressor and V",
    (
        Column("compressor", "string", "what --compressor calls it"),
        Column("encoder", "string", "vision encoder, a name or folder"),
        Column("llm", "string", "LLM, a name or folder"),
        Column(
            "supported",
            "string",
            "every V that it can make of the encoder's grid, neighbours as a range: 1 to 256",
        ),
        Column("visual_tokens", "int", "the V of this row", "tokens"),
        Column("n_params", "int", "its parameters"),
        Column("flops", "int", "its matrix products for one image", "FLOP"),
        Column(
            "flops_query_token",
            "int",
            "for a token of the question besides: the LLM's, or of the layers that fuse it",
            "FLOP",
        ),
        Column(
            "flops_encoder",
            "int",
            "the encoder's up to there for one image, fewer where patches merge inside it",
            "FLOP",
        ),
        Column("levels", "string", "hidden states of the encoder that it reads"),
        Column("needs_query", "bool", "it compresses for a question"),
        Column("fuses_text", "bool", "it fuses the text with the image before the LLM"),
        Column("needs_cls", "bool", "it needs the encoder's class token"),
        Column("trained", "bool", "it must be trained; else any mlp run's projector serves"),
        Column("elastic", "bool", "one set of weights serves several V"),
        Column("source", "string", "the paper it is from"),
    ),
)

TRAIN_LOG = Table(
    "train_log",
    1,
    "one row a logged optimizer step",
    (
        Column("step", "int", "optimizer steps done"),
        Column("epoch", "float", "passes over the data"),
        Column(
            "loss",
            "float",
            "mean loss since the last row: nats a supervised token; of --objective align a squared "
            "distance to the words' embeddings, 1 for tokens of zeros",
        ),
        Column("learning_rate", "float", "learning rate of the first parameter group"),
        Column("grad_norm", "float", "gradient norm before clipping", nullable=True),
        Column("samples_seen", "int", "samples trained on so far"),
        Column("supervised_tokens", "int", "supervised tokens so far", "tokens"),
        Column("seconds", "float", "time since the start of the training", "s"),
        Column(
            "tokens_per_second",
            "float",
            "tokens of the LLM, visual and text, without padding, since the last row",
            "tokens/s",
            nullable=True,
        ),
        Column(
            "images_per_second", "float", "images since the last row", "images/s", nullable=True
        ),
        Column(
            "peak_memory_bytes",
            "int",
            "most memory held so far: by torch on the GPU, without one by the process",
            "bytes",
            nullable=True,
        ),
    ),
)

ESTIMATE = Table(
    "estimate",
    1,
    "what a training will take, from its settings alone, one row a run",
    (
        Column("recipe", "string", "file of the recipe", nullable=True),
        Column("command", "string", "train-projector or finetune"),
        Column("llm", "string", "LLM, a name or folder"),
        Column("n_params_total", "int", "parameters of the LLM, embeddings included"),
        Column("encoder", "string", "vision encoder, a name or folder"),
        Column("compressor", "string", "token compressor"),
        Column("visual_tokens", "int", "visual tokens an image", "tokens"),
        Column(
            "trained_visual_tokens",
            "string",
            "the V of an elastic training, and whether tokens and flops are their mean (a step "
            "draws one) or their sum (a step trains all)",
            nullable=True,
        ),
        Column("method", "string", "what trains: compressor alone, or full, lora, qlora"),
        Column("samples", "int", "samples seen in all"),
        Column("steps", "int", "optimizer steps"),
        Column("batch_size", "int", "samples a micro-batch"),
        Column("accumulate", "int", "micro-batches an optimizer step"),
        Column("tokens", "int", "tokens that enter the LLM in all", "tokens"),
        Column("flops", "float", "FLOPs truly needed: no recomputation, causal attention", "FLOP"),
        Column("flops_encoder", "float", "those of the frozen encoder among them", "FLOP"),
        Column("gpu", "string", "GPU of the catalog the hours are for", nullable=True),
        Column("mfu", "float", "share of the GPU's peak assumed to be used", "share", True),
        Column("gpu_hours", "float", "time at that share", "h", nullable=True),
        Column("memory_weights", "int", "weights of all models", "bytes"),
        Column("memory_gradients", "int", "gradients of what trains", "bytes"),
        Column("memory_optimizer", "int", "states of the optimizer on the GPU", "bytes"),
        Column("memory_activations", "int", "activations of the longest batch", "bytes"),
        Column("memory_overhead", "int", "CUDA's context and the allocator's slack", "bytes"),
        Column("memory_peak", "int", "all of these", "bytes"),
        Column("fits", "bool", "whether the peak fits that GPU", nullable=True),
        Column(
            "fitting_batch_size",
            "int",
            "largest micro-batch that fits it at the same global batch; empty: none",
            nullable=True,
        ),
        Column("disk_run", "int", "the finished run", "bytes"),
        Column("disk_checkpoints", "int", "checkpoints while it trains", "bytes"),
        Column("disk_features", "int", "a feature cache of its images, if one is made", "bytes"),
    ),
)

TABLES = (
    SAMPLES,
    REJECTS,
    TRAIN_LOG,
    PREDICTIONS,
    SCORES,
    CATEGORIES,
    BENCHMARKS,
    LLMS,
    ENCODERS,
    GPUS,
    COMPRESSORS,
    LAW,
    FORMS,
    PROFILE,
    RECOMMENDATION,
    COSTS,
    ESTIMATE,
    COMPARISON,
    PLAN,
)
BY_NAME = {table.name: table for table in TABLES}
