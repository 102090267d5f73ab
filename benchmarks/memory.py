"""Peak memory of real training steps on the CPU against the arithmetic of vtc/cost/memory.py.

    python benchmarks/memory.py

Every case is a process of its own: a random Qwen2 with a CLIP encoder and TokenPacker, two fp32
steps; the peak resident memory above that of the loaded libraries. Exits with 1 if an estimate
is off by more than FACTOR.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

FACTOR = 1.25
LLM = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "model_type": "qwen2",
    "tie_word_embeddings": True,
}
VISION = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 192,
    "patch_size": 8,
}
# what trains, vocabulary, gradient checkpointing, visual tokens, rows, tokens, supervised of a row
CASES = [
    ("nothing", 32_000, False, 576, 4, 640, 32),
    ("nothing", 152_000, False, 16, 4, 96, 64),
    ("nothing", 32_000, True, 576, 4, 640, 32),
    ("lora", 32_000, False, 144, 4, 384, 128),
    ("lora", 32_000, True, 144, 4, 384, 128),
    ("full", 32_000, False, 144, 4, 384, 128),
    ("full", 32_000, True, 576, 4, 832, 128),
    ("full", 152_000, False, 16, 4, 256, 128),
]


def main() -> None:
    """Run every case and print a table."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # Tensors go back to the system when they are freed: resident memory is what is in use.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    heads = ("trains", "vocabulary", "checkpointing", "V", "rows x tokens")
    print(f"| {' | '.join(heads)} | measured MB | estimate MB | ratio |")
    print("|---" * 8 + "|")
    ratios = []
    for case in CASES:
        command = [sys.executable, __file__, json.dumps(case)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        measured, estimate = json.loads(done.stdout)
        trains, vocabulary, checkpointing, visual, rows, tokens, _ = case
        ratios.append(estimate / measured)
        cells = (
            *(trains, f"{vocabulary:,}", "yes" if checkpointing else "no", visual),
            *(f"{rows} x {tokens}", f"{measured / 1e6:,.0f}", f"{estimate / 1e6:,.0f}"),
            f"{ratios[-1]:.2f}",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    sys.exit(any(not 1 / FACTOR < ratio < FACTOR for ratio in ratios))


def one(trains, vocabulary, checkpointing, visual, rows, tokens, supervised) -> tuple[int, float]:
    """Measured and estimated peak bytes of one case, in this process."""
    import peft  # noqa: F401  (loaded before the first reading, as all libraries)
    import torch
    from transformers import CLIPVisionConfig, Qwen2Config

    from vtc.model.config import VtcConfig
    from vtc.model.modeling import VtcForConditionalGeneration
    from vtc.train.stages import add_lora, freeze_all_but_compressor, unfreeze_for_finetune

    torch.zeros(64, 64) @ torch.zeros(64, 64)
    before = memory("VmRSS")
    text = {**LLM, "vocab_size": vocabulary}
    config = VtcConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=Qwen2Config(**text),
        image_token_index=vocabulary - 1,
        compressor="tokenpacker",
        visual_tokens=visual,
        tie_word_embeddings=True,
    )
    model = VtcForConditionalGeneration(config)
    freeze_all_but_compressor(model)
    if trains == "lora":
        from vtc.train.settings import LoraSettings

        model = add_lora(model, LoraSettings(r=32))
    elif trains == "full":
        unfreeze_for_finetune(model)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    ids = torch.randint(0, vocabulary - 1, (rows, tokens))
    ids[:, :visual] = vocabulary - 1
    kept = torch.zeros(rows, tokens, dtype=torch.bool)
    kept[:, -supervised - 1 : -1] = True
    targets = ids[:, -supervised:].reshape(1, -1)
    pixels = torch.rand(rows, 3, VISION["image_size"], VISION["image_size"])
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        loss = model(
            input_ids=ids, pixel_values=pixels, labels=targets, shift_labels=targets,
            logits_to_keep=kept, use_cache=False,
        ).loss  # fmt: skip
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    measured = memory("VmHWM") - before
    return measured, estimate(trains, text, checkpointing, visual, rows, tokens, supervised)


def estimate(trains, text, checkpointing, visual, rows, tokens, supervised) -> float:
    """The arithmetic's peak of the same case."""
    from vtc.catalog.shapes import encoder_from_config, llm_from_config
    from vtc.compress.statement import statement
    from vtc.cost.memory import CompressorCost, Setup, StepShape, training_memory

    encoder = encoder_from_config({**VISION, "model_type": "clip_vision_model"}, "encoder")
    llm = llm_from_config(text, "llm")
    stated = statement(
        "tokenpacker", vision_width=encoder.hidden_size, text_width=llm.hidden_size,
        depth=encoder.n_layers, grid=encoder.grid, visual_tokens=visual,
    )  # fmt: skip
    setup = Setup(trains, "fp32", lora_rank=32, checkpointing=checkpointing, gpu=False)
    step = StepShape(rows, tokens, supervised, images=rows)
    return training_memory(llm, encoder, CompressorCost(*stated), setup, step).peak


def memory(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(*json.loads(sys.argv[1]))))
    else:
        main()
