"""`vtc eval`: runs and benchmarks in, predictions and scores out."""

import click

from vtc.commands import options, preflight


@click.command("eval")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    required=True,
    type=click.Path(),
    help="A benchmark's name (see vtc benchmarks), or the TOML file of one of your own; may be "
    "given several times.",
)
@click.option(
    "--data-dir",
    type=click.Path(),
    help="Folder with the data of named benchmarks (DIR/NAME/*.parquet). [default: the hub]",
)
@click.option(
    "--save-images",
    type=click.Path(file_okay=False),
    help="Keep the images of named benchmarks in this folder. [default: they go when all is done]",
)
@click.option("--streaming", is_flag=True, help="Read the hub's data over the net, row by row.")
@click.option("--scores", help="Where the scores go too (a table: one row a run and benchmark).")
@click.option("--images", help="Image root, in place of the benchmarks' own.")
@click.option("--features", help="Feature cache made by vtc encode; other images are encoded.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Only the first items of each benchmark (whole pairs and circles).",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), help="Longest answer. [default: the benchmark's]"
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Prompts a batch."
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Floating type. [default: bf16 on a GPU, else fp32]",
)
@click.option(
    "--load-4bit",
    is_flag=True,
    help="Load the LLMs' linear layers in 4 bits (nf4), in less memory; a QLoRA run's always are.",
)
@click.option("--device", help="Device, such as cpu or cuda. [default: cuda where there is one]")
@options.scoring
@options.config
@options.output
def evaluate(
    runs, benchmarks, data_dir, save_images, streaming, scores, images, features, limit,
    max_new_tokens, batch_size, dtype, load_4bit, device, compat, incomplete, average, sets,
    out, fmt, force,
) -> None:  # fmt: skip
    """Let finished RUNS answer benchmarks; write one row an answer, and the scores.

    Several runs in one call share the libraries' start and, with the same encoder, its pass over
    the images. An item whose image does not open counts as wrong and is
    marked in the column `fault`. Without -o the scores are shown on stdout.

    \b
    Example:
      vtc eval runs/* --benchmark mme --benchmark gqa --data-dir data/ -o predictions.parquet
      vtc eval runs/* --benchmark world/benchmarks/ocr.toml -o predictions.parquet \\
          --scores scores.parquet
    """
    from pathlib import Path

    from vtc import console
    from vtc.evaluate import average as averages
    from vtc.evaluate.aggregate import aggregate, score_item
    from vtc.evaluate.benchmarks.loading import Where
    from vtc.evaluate.choosing import choose, partial, picture_folder
    from vtc.tables import specs
    from vtc.tables.provenance import footer
    from vtc.tables.write import check_output

    for run in runs:
        preflight.check_run(run)
    preflight.check_features(features)
    for path in filter(None, (scores, out)):
        check_output(path, fmt if path == out else None, force)
    with picture_folder(save_images) as pictures:
        where = Where(
            pictures,
            Path(data_dir) if data_dir else None,
            Path(images).resolve() if images else None,
            streaming,
            incomplete,
        )
        chosen = choose(benchmarks, where, limit, max_new_tokens)
        averages.check([benchmark.name for benchmark, _ in chosen], average, sets, incomplete)
        for sentence in partial(chosen):
            console.say(sentence)

        from vtc.evaluate.runner import Exam, evaluate, settings

        how = settings(batch_size, dtype, device, features, load_4bit)
        exams = [Exam.of(*pair) for pair in chosen]
        rows = evaluate([Path(run) for run in runs], exams, how, console.progress)
    if compat:
        rows = [score_item(row, True) for row in rows]
    faults = sum(row["fault"] is not None for row in rows)
    if faults:
        console.say(f"{faults} of {len(rows)} answers are missing (see `fault`): scored wrong")
    asked = {"benchmark": list(benchmarks), "data_dir": data_dir, "limit": limit, "compat": compat}
    asked |= {"images": {benchmark.name: str(benchmark.images) for benchmark, _ in chosen}}
    read = dict.fromkeys(file for benchmark, _ in chosen for file in benchmark.inputs)
    about = footer(settings={**how.described(), **asked}, inputs=list(read))
    if out != "-" or fmt not in (None, "table"):
        options.emit(rows, specs.PREDICTIONS, out, fmt, force, footer=about)
    result = averages.averaged(
        aggregate(rows, compat is not None, incomplete), average, sets, incomplete
    )
    if scores:
        options.emit(result, specs.SCORES, scores, None, force, footer=about)
    if out == "-" and fmt in (None, "table") and scores != "-":
        columns = "run_id n_params visual_tokens benchmark score stderr chance n_items"
        options.emit(result, specs.SCORES, "-", "table", force, columns=columns.split())
