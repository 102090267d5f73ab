"""Items a second of `vtc eval` against the loop of LLaVA's scripts: `generate`, one item a call.

    python benchmarks/evaluation.py

The same run, rows and greedy answers, in fp32 on one thread; CPU seconds and peak memory, every arm
a process of its own, models loaded before the clock starts. The loop is what `model_vqa_loader.py`
of LLaVA and the `llava` of lmms-eval do: open the image, encode it, generate, batch 1. The run has
an encoder of 24x24 patches (4 layers of 64) and an LLM of 4 layers (`--width`), both random;
answers have up to `--tokens` tokens, as random weights seldom end one.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ARMS = ("loop", "eval", "eval, cached features", "eval by likelihood")
N_WORDS = (5, 25)


def main() -> None:
    """Run every arm at every V and print a table; ratios are to the loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=320)
    parser.add_argument("--questions", type=int, default=5, help="questions an image")
    parser.add_argument("--tokens", type=int, default=4, help="longest answer")
    parser.add_argument("--width", type=int, default=128, help="of the LLM")
    parser.add_argument("--visual-tokens", default="1,144")
    parser.add_argument("--world", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(one(arguments.world, *json.loads(arguments.arm))))
        return
    values = [int(value) for value in arguments.visual_tokens.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        make(world, values, arguments)
        print("| V | how | items/s | x | peak MB above the loaded model | same answers |")
        print("|---" * 6 + "|")
        for value in values:
            table(world, value)


def table(world: Path, visual_tokens: int) -> None:
    """The rows of one V."""
    base: dict[str, Any] = {}
    for arm in ARMS:
        found = in_process(world, [arm, visual_tokens])
        base = base or found
        speed = len(found["answers"]) / found["seconds"]
        ratio = base["seconds"] / found["seconds"]
        same = "-" if "likelihood" in arm else found["answers"] == base["answers"]
        assert same, f"V = {visual_tokens}: {arm} answers otherwise than the loop"
        cells = (visual_tokens, arm, f"{speed:.1f}", f"{ratio:.1f}", f"{found['peak'] / 1e6:.0f}")
        print(f"| {' | '.join(map(str, (*cells, same)))} |", flush=True)


def in_process(world: Path, arm: list[Any]) -> dict[str, Any]:
    """What `one` says of an arm, from a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # Tensors go back to the system when they are freed: resident memory is what is in use.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, __file__, "--world", str(world), "--arm", json.dumps(arm)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def make(world: Path, values: list[int], arguments: argparse.Namespace) -> None:
    """Backbones, images, a run for each V, a feature cache and two benchmarks of the same items."""
    import numpy as np
    import torch
    from training_world import WORDS, make_world

    from vtc.model.assemble import assemble
    from vtc.model.backbones import load_encoder
    from vtc.model.encode import layout_of, write_encoded
    from vtc.model.run import save_run

    n_images = -(-arguments.items // arguments.questions)
    make_world(world, 2048, n_images, arguments.width)
    for value in values:
        built = assemble(world / "encoder", world / "llm", "avgpool", value)
        with torch.no_grad():
            for name, weight in built.model.model.language_model.named_parameters():
                # Wide enough that the answers of random weights differ from item to item.
                weight.mul_(6 if weight.ndim == 2 and "embed" not in name else 1)
        save_run(
            world / f"v{value}", built.model, built.processor, encoder=built.encoder,
            llm=built.llm, stage="projector", weights="full", seed=0,
        )  # fmt: skip
    names = [f"{number}.jpg" for number in range(n_images)]
    encoder = load_encoder(world / "encoder")
    layout = layout_of(encoder, built.model.compressor.request.levels, "fp32")
    write_encoded(world / "features", encoder, world / "images", names, layout)
    random = np.random.default_rng(0)
    rows = [
        {
            "id": number,
            "image": names[number // arguments.questions],
            "question": " ".join(random.choice(WORDS.split(), int(random.integers(*N_WORDS)))),
            "answers": "yes",
        }
        for number in range(arguments.items)
    ]
    (world / "rows.json").write_text(json.dumps(rows))
    (world / "b.toml").write_text(
        'name = "b"\ntask = "reasoning"\nrows = "rows.json"\nimages = "images"\n'
        f'metric = "exact_match"\nmax_new_tokens = {arguments.tokens}\n'
        '[columns]\nid = "id"\nimage = "image"\n'
    )


def one(world: Path, arm: str, visual_tokens: int) -> dict[str, Any]:
    """CPU seconds, peak bytes above what the loaded model takes, and the answers of an arm."""
    import torch

    from vtc.evaluate import runner
    from vtc.evaluate.benchmark import read_benchmark
    from vtc.evaluate.items import read_items
    from vtc.model.run import load_run

    torch.set_num_threads(1)
    benchmark = read_benchmark(world / "b.toml")
    exam = runner.Exam.of(benchmark, read_items(benchmark))
    run = load_run(world / f"v{visual_tokens}")
    # The run is at hand for both: what is timed is answering.
    runner.load_run = lambda *args, **kwargs: run
    how = runner.Settings(
        features=world / "features" if "cached" in arm else None,
        answer_by="likelihood" if "likelihood" in arm else "generation",
    )
    _loop(run, exam, 1)
    # The peak begins anew: reading the weights has one of its own.
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _kib("VmRSS"), time.process_time()
    if arm == "loop":
        answers = _loop(run, exam, len(exam.items))
    else:
        rows = runner.evaluate([world / f"v{visual_tokens}"], [exam], how, _untracked)
        answers = [row["prediction"] for row in rows]
    seconds = time.process_time() - start
    peak = (_kib("VmHWM") - before) * 1024
    return {"seconds": seconds, "peak": peak, "answers": answers}


def _loop(run: Any, exam: Any, n: int) -> list[str]:
    """The first answers by `generate`, an item a call, its image encoded each time."""
    import torch

    from vtc.data.images import open_image
    from vtc.evaluate.prompts import tokenise

    items, tokenizer = exam.items[:n], run.processor.tokenizer
    prompts = tokenise(items, tokenizer, run.manifest["visual_tokens"])
    answers = []
    for item, prompt in zip(items, prompts, strict=True):
        image = open_image(exam.benchmark.images, item.images[0])
        pixels = run.processor.image_processor([image], return_tensors="pt")["pixel_values"]
        ids = torch.tensor([prompt.ids])
        new = run.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
            max_new_tokens=exam.benchmark.max_new_tokens, do_sample=False,
        )[0, ids.shape[1] :]  # fmt: skip
        answers.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


@contextlib.contextmanager
def _untracked(what: str, total: int):
    yield lambda n: None


def _kib(name: str) -> int:
    """A figure of this process from the kernel, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


if __name__ == "__main__":
    main()
