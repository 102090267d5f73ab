"""`vtc eval`: runs and benchmarks in, predictions and scores out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from vtc.commands import options, preflight
from vtc.commands.refit import asked, folders_of, refit_options
from vtc.commands.scores import Scoring
from vtc.errors import InputError


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
    help="Folder with the benchmarks' data (DIR/NAME/*.parquet). [default: the hub]",
)
@click.option(
    "--save-images",
    type=click.Path(file_okay=False),
    help="Keep pictures that stand in the benchmarks' rows in this folder. [default: they go when "
    "all is done]",
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
    "--answer-by",
    type=click.Choice(["generation", "likelihood"]),
    default="generation",
    show_default=True,
    help="Let the runs write their answers, or take the likeliest of an item's options, or of yes "
    "and no; open questions between them are still written.",
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
@refit_options
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V, one or several, of runs whose compressor serves several (mqt, m3), or of "
    "--compressor: 1,4,16. [default: the runs' own]",
)
@click.option(
    "--repeat-visual-tokens",
    type=click.IntRange(1),
    metavar="K",
    help="Feed the LLM an image's V tokens K times in a row, K V in all. [default: as the runs "
    "were trained]",
)
@click.option("--device", help="Device, such as cpu or cuda. [default: cuda where there is one]")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that open images ahead. [default: 0 on the CPU, else half its cores, up to 8]",
)
@click.option(
    "--engine",
    type=click.Choice(["vtc", "vllm"]),
    default="vtc",
    show_default=True,
    help="What reads prompts and writes answers: vtc itself, or vLLM (0.32 or later) beside it.",
)
@click.option(
    "--vllm-python",
    metavar="FILE",
    help="The Python of the environment that has vLLM. [default: the one that runs vtc]",
)
@click.option(
    "--resume", is_flag=True, help="Go on with an evaluation that was stopped, of the same output."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked, where it goes and its cost, and stop."
)
@options.scoring
@options.config
@options.output
def evaluate(
    runs, benchmarks, data_dir, save_images, streaming, scores, images, features, limit,
    max_new_tokens, answer_by, batch_size, dtype, load_4bit, device, workers, engine,
    vllm_python, resume, dry_run,
    compat, incomplete, by, average, sets, out, fmt, force, compressor, compressor_settings,
    reference_behaviour, visual_tokens, repeat_visual_tokens,
) -> None:  # fmt: skip
    """Let finished RUNS answer benchmarks; write one row an answer, and the scores.

    Several runs in one call share the libraries' start and, with the same encoder, its pass over
    the images. So do several V of one run that serves them: --visual-tokens 1,4,16 gives an answer
    of each run at each V, marked where it was not trained at that V. An item whose image does not
    open counts as wrong and is marked in the column `fault`. Without -o the scores are shown on
    stdout. With it, answers are kept beside the output as they come: what was stopped goes on with
    --resume.

    \b
    Example:
      vtc eval runs/* --benchmark mme --benchmark gqa --data-dir data/ -o predictions.parquet
      vtc eval runs/* --benchmark mmmu --dry-run
      vtc eval runs/m3-v144 --benchmark gqa --visual-tokens 1,9,36,144
      vtc eval llava --benchmark gqa --compressor visionzip --visual-tokens 64,144
      vtc eval runs/* --benchmark world/benchmarks/ocr.toml -o predictions.parquet \\
          --scores scores.parquet
    """
    from vtc import console
    from vtc.evaluate import average as averages
    from vtc.evaluate.answered import finished, keeping, left, refuse_left
    from vtc.evaluate.benchmarks.loading import Where
    from vtc.evaluate.choosing import choose, partial, picture_folder
    from vtc.tables.write import check_output

    scoring = Scoring(compat is not None, incomplete, by, average, sets)
    scoring.check()
    file = None if out == "-" else Path(out)
    if resume and (force or file is None):
        raise InputError(
            "--force begins again and --resume goes on; give one of them"
            if force
            else "--resume goes on with an output that was stopped; name it with -o"
        )
    refit = asked(compressor, compressor_settings, visual_tokens, reference_behaviour)
    # Refitted runs have a folder for each V, so that theirs is their own.
    turns = () if refit or not visual_tokens else visual_tokens
    vllm = preflight.check_engine(engine, vllm_python, answer_by, load_4bit)
    for run in runs:
        preflight.check_run(run)
        preflight.check_served(run, turns)
    preflight.check_features(features)
    if scores and scores != "-" and Path(scores).resolve() == Path(out).resolve():
        raise InputError(f"-o and --scores are both {out}; they are two tables")
    for path in filter(None, (scores, out)):
        check_output(path, fmt if path == out else None, force or resume or dry_run)
    if file is not None and not (force or resume or dry_run):
        refuse_left(file)
    with picture_folder(None if dry_run else save_images) as pictures:
        where = Where(
            pictures,
            Path(data_dir) if data_dir else None,
            Path(images).resolve() if images else None,
            streaming,
            incomplete,
            writes=not dry_run,
        )
        chosen = choose(benchmarks, where, limit, max_new_tokens)
        averages.check([benchmark.name for benchmark, _ in chosen], average, sets, incomplete)
        scoring.check_items(chosen)
        for sentence in partial(chosen):
            console.say(sentence)

        from vtc.evaluate.exam import Exam
        from vtc.evaluate.runner import evaluate, identity, settings

        how = settings(
            batch_size, dtype, device, features, load_4bit, answer_by=answer_by, workers=workers,
            vllm=vllm, visual_tokens=turns, repeat_visual_tokens=repeat_visual_tokens,
        )  # fmt: skip
        exams = [Exam.of(*pair) for pair in chosen]
        folders = folders_of(runs, refit)
        warn_untrained(folders, turns, repeat_visual_tokens)
        if dry_run:
            from vtc.commands.eval_dry_run import report

            facts = {"limit": limit, "save_images": save_images}
            outputs = [path for path in (out, scores) if path not in (None, "-")]
            for line in list(report(folders, exams, how, facts, outputs)):
                click.echo(line)
            return
        about = identity(folders, exams, how)
        if resume and file is not None and finished(file, about):
            console.say(f"{out} is finished{_scores_of(file, scores, scoring)}")
            return
        with keeping(file, about, resume, force) as answers:
            if len(answers):
                console.say(f"going on behind {len(answers)} answers")
            try:
                rows = evaluate(folders, exams, how, console.progress, answers)
            except KeyboardInterrupt:
                if file is not None and len(answers):
                    console.say(f"{left(file)} keeps {len(answers)} answers; go on with --resume")
                raise
            given = {"benchmark": list(benchmarks), "data_dir": data_dir, "limit": limit}
            given |= {"compat": compat, "answers_of": about}
            given |= {"images": {benchmark.name: str(benchmark.images) for benchmark, _ in chosen}}
            inputs = dict.fromkeys(path for benchmark, _ in chosen for path in benchmark.inputs)
            ending = Ending(scoring, scores, out, fmt)
            ending.write(rows, {**how.described(), **given}, list(inputs), force or resume)


def _scores_of(predictions: Path, scores: str | None, scoring: Scoring) -> str:
    """Make the scores that a stop left out of finished predictions; what to say of it."""
    if scores is None or Path(scores).exists():
        return ""
    from vtc.evaluate.predictions import Source
    from vtc.tables.provenance import footer

    about = footer(settings={"compat": scoring.compat}, inputs=[predictions])
    rows = scoring.of_files([predictions], Source({}))
    options.emit(rows, scoring.table, scores, None, False, footer=about)
    return f"; {scores} is made from it" if scores != "-" else ""


def warn_untrained(
    runs: Sequence[str | Path], visual_tokens: Sequence[int], repeats: int | None = None
) -> None:
    """Say, once a run, at which of these V, and how often fed, it was not trained.

    Without V it is the run's own: of imported weights that serve several it may be another.
    """
    from vtc import console
    from vtc.compress.serving import other_repeats, untrained
    from vtc.model.manifest import read_manifest

    for run in runs:
        manifest = read_manifest(run)
        of_v = untrained(run, manifest, visual_tokens or [manifest["visual_tokens"]])
        for words in filter(None, (of_v, other_repeats(run, manifest, repeats))):
            console.say(words)


class Ending(NamedTuple):
    """How answers are scored, and where they and the scores go."""

    scoring: Scoring
    scores: str | None
    out: str
    fmt: str | None

    def write(
        self,
        rows: list[dict[str, Any]],
        settings: dict[str, Any],
        inputs: list[Any],
        force: bool,
    ) -> None:
        """Score the rows of predictions and write both tables."""
        from vtc import console
        from vtc.evaluate.aggregate import score_item
        from vtc.tables import specs
        from vtc.tables.provenance import footer

        scoring = self.scoring
        if scoring.compat:
            rows = [score_item(row, True) for row in rows]
        faults = [row for row in rows if row["fault"] is not None]
        if faults:
            first = f"{faults[0]['benchmark']}, item {faults[0]['item_id']}: {faults[0]['fault']}"
            console.say(
                f"{len(faults)} of {len(rows)} answers are missing and scored wrong; the first is "
                f"{first}"
            )
        about = footer(settings=settings, inputs=inputs)
        on_screen = self.out == "-" and self.fmt in (None, "table")
        if not on_screen:
            options.emit(rows, specs.PREDICTIONS, self.out, self.fmt, force, footer=about)
        result = scoring.rows(rows)
        if self.scores:
            options.emit(result, scoring.table, self.scores, None, force, footer=about)
        if on_screen and self.scores != "-":
            columns = scoring.columns(result)
            options.emit(result, scoring.table, "-", "table", force, columns=columns)
