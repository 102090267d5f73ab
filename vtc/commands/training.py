"""Flags that both training stages share, and what the two commands do with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vtc.commands import options
from vtc.errors import InputError

_RENAMED = {"lr": "learning_rate", "compressor_lr": "compressor_learning_rate"}


def stage_options(
    *,
    lr: float,
    batch_size: int,
    accumulate: int,
    template: str,
    seed: Callable[[Callable], Callable] = options.seed,
) -> Callable:
    """Add the flags of a training stage, with the stage's own defaults (LLaVA-1.5's)."""
    option = partial(click.option, show_default=True)
    added = (
        click.option("--images", default=None, help="Image root. [default: the samples']"),
        click.option("--features", default=None, help="Feature cache made by vtc encode."),
        option("--lr", default=lr, help="Peak learning rate."),
        option("--batch-size", default=batch_size, help="Samples a batch."),
        option("--accumulate", default=accumulate, help="Batches an optimizer step adds up."),
        option("--epochs", default=1.0, help="Passes over the samples."),
        click.option("--max-steps", type=int, help="Optimizer steps, in place of --epochs."),
        option("--warmup", default=0.03, help="Share of the steps to warm up in."),
        option("--weight-decay", default=0.0, help="Weight decay of AdamW."),
        option(
            "--template",
            type=click.Choice(["plain", "chat"]),
            default=template,
            help="plain: image, caption, newline. chat: the LLM's chat template.",
        ),
        click.option(
            "--weights",
            help="Passes an epoch makes over each source of samples: 2,1 or NAME=0.5. "
            "[default: one each]",
        ),
        options.chat_template,
        options.image_mode("the run's or the encoder's own"),
        click.option(
            "--query-position",
            type=click.Choice(["after", "before"]),
            help="Side of the image on which questions stand. [default: the run's, else after]",
        ),
        click.option(
            "--query-scope",
            type=click.Choice(["latest", "first", "all"]),
            help="Questions that quecc compresses an image for: of several turns the one being "
            "answered, the one beside the image, or all so far. [default: the run's, else latest]",
        ),
        click.option(
            "--train-visual-tokens",
            type=options.Turns(),
            help="Elastic training (mqt, m3, avgpool, tokenpacker, c-abstractor, ldpv2): the V "
            "that steps train at, such as 1,4,16,36, with 1 and up to the run's own V, always "
            "among them; published: those of the paper (mqt, m3). [default: as the run; in stage "
            "1 its own V alone]",
        ),
        click.option(
            "--repeat-visual-tokens",
            type=click.IntRange(1),
            metavar="K",
            help="Feed the LLM an image's V tokens K times in a row, K V in all: more FLOPs, no "
            "more information. [default: as the run; in stage 1 once]",
        ),
        option("--max-length", default=2048, help="Tokens of a sample that are kept."),
        option(
            "--dtype",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            help="auto: fp32 on the CPU, bf16 computation on a GPU.",
        ),
        option("--log-every", default=10, help="Optimizer steps a row of the training log."),
        option(
            "--length-bucket",
            default=8,
            help="Batches sorted by length together, so that little is padded; 1: none.",
        ),
        option(
            "--optimizer",
            type=click.Choice(["adamw", "adamw-8bit", "paged-adamw-8bit"]),
            default="adamw",
            help="AdamW: fused, or bitsandbytes' with 8-bit states, kept off the GPU if paged.",
        ),
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            help="Compute the LLM's layers again in the backward pass: less memory, slower.",
        ),
        click.option(
            "--pack",
            is_flag=True,
            help="Put the samples of a batch into one row, without padding; they stay apart.",
        ),
        click.option("--compile", is_flag=True, help="torch.compile the model."),
        option(
            "--attention",
            type=click.Choice(["auto", "sdpa", "flash", "flex", "eager"]),
            default="auto",
            help="Kernel of the LLM's attention; auto: SDPA.",
        ),
        click.option(
            "--auto-batch",
            is_flag=True,
            help="Try the longest samples first, and take the largest batch that fits; the global "
            "batch stays.",
        ),
        click.option(
            "--max-memory",
            type=options.Bytes(),
            help="With --auto-batch: memory to use, such as 20GB. [default: what is free]",
        ),
        seed,
        click.option(
            "--data-seed",
            type=int,
            help="Seed of the samples' order and mixture alone, for runs on the same batches. "
            "[default: --seed]",
        ),
        click.option("-o", "--out", required=True, help="Folder the run folders go to."),
        click.option("--force", is_flag=True, help="Overwrite runs that exist."),
        option("--save-every", default=500, help="Steps a checkpoint; 0: only when told to stop."),
        option("--keep", default=2, help="Checkpoints that stay; they go when the run is whole."),
        click.option(
            "--resume", is_flag=True, help="Go on from the newest checkpoint; skip finished runs."
        ),
        click.option(
            "--report-to",
            type=click.Choice(["trackio", "tensorboard", "wandb"]),
            help="Also send the log there.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Print settings as a --config file, and steps, paths, FLOPs, memory and disk.",
        ),
        click.option(
            "--gpu",
            help="With --dry-run: the GPU that hours and memory are for. [default: this machine's]",
        ),
        options.config,
    )

    def add(function: Callable) -> Callable:
        for one in reversed(added):
            function = one(function)
        return function

    return add


def refuse_idle(needs: str, *names: str) -> None:
    """Raise InputError if one of the options `names` was given, which does nothing without `needs`.

    Call it where `needs` does not hold. A setting of a --config file counts unless the command line
    says otherwise than the file meant: there the option that `needs` begins with was typed.
    """
    context = click.get_current_context()
    typed = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    for name in names:
        source = context.get_parameter_source(name)
        flag = "--" + name.replace("_", "-")
        if source in typed:
            raise InputError(f"{flag} needs {needs}; give both, or leave it out")
        chosen = context.get_parameter_source(needs.split()[0].strip("-").replace("-", "_"))
        if source == ParameterSource.DEFAULT_MAP and chosen == ParameterSource.DEFAULT:
            raise InputError(f"{flag} in the --config file needs {needs}; state both, or neither")


def take_job_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Take the flags that say where runs go and how they are saved out of `flags`.

    Raises InputError if they contradict one another, or name a package that is not installed.
    """
    from vtc.train.checkpoints import Saving

    force, resume, report_to = (flags.pop(name) for name in ("force", "resume", "report_to"))
    if force and resume:
        raise InputError("--force starts again and --resume goes on; give one of them")
    if report_to and find_spec(report_to) is None:
        raise InputError(
            f"--report-to {report_to}: not installed; pip install {report_to}, or leave it out"
        )
    return {
        "out": Path(flags.pop("out")),
        "force": force,
        "saving": Saving(flags.pop("save_every"), flags.pop("keep"), resume),
        "report_to": report_to,
    }


@dataclass
class Request:
    """A training asked for on the command line: settings, samples, and where images come from."""

    settings: Any
    samples: Any
    files: Sequence[str]
    features: str | None
    dry_run: bool
    gpu: str | None = None

    @classmethod
    def of(cls, files: Sequence[str], flags: dict[str, Any], stage: Any, **more: Any) -> "Request":
        """Settings from flags over a stage's defaults; reads the samples, opens no image."""
        from vtc.data.chat_templates import template_text
        from vtc.data.samples import read_samples

        images, features, dry_run, gpu = (
            flags.pop(name) for name in ("images", "features", "dry_run", "gpu")
        )
        if gpu and not dry_run:
            raise InputError("--gpu is for --dry-run alone; a training takes the GPU it finds")
        named = {_RENAMED.get(name, name): value for name, value in flags.items()}
        settings = stage.with_(**named, **more)
        if settings.chat_template is not None:
            template_text(settings.chat_template)
        samples = read_samples(files, images, weights=settings.weights, seed=settings.order_seed)
        return cls(settings, samples, files, features, dry_run, gpu)

    @property
    def inputs(self) -> list[str]:
        """The files that make a run what it is."""
        return [*self.files, *filter(None, [self.settings.chat_template])]

    def describe(
        self,
        runs: Sequence[tuple[Path, dict[str, Any]]],
        keep: int,
        seeds: Sequence[int] = (),
    ) -> None:
        """Print settings as lines of a --config file; steps, outputs and costs as its comments.

        `runs` are output folders, each with encoder, llm, compressor and visual_tokens, and as many
        of each of several `seeds`.
        """
        from vtc.commands.dry_run import costs, settings_lines

        # Before a word is out: models that cannot be had are named here.
        lines = costs(self, runs, keep, max(len(seeds), 1))
        n_samples = len(self.samples.rows)
        facts = {
            "samples": n_samples,
            "image_root": self.samples.image_root,
            "features": self.features,
            "steps": self.settings.n_steps(n_samples),
            "global_batch": self.settings.batch_size * self.settings.accumulate,
        }
        lines = [
            *settings_lines(click.get_current_context()),
            *(f"# {name} = {value}" for name, value in facts.items()),
            *(f"# output = {run}{' (exists)' if run.exists() else ''}" for run, _ in runs),
            *(f"# {line}" for line in lines),
        ]
        click.echo("\n".join(lines))

    def run(self, train: Callable[..., Any], n_runs: int) -> None:
        """Train with progress on stderr; every run's footer names the inputs and the settings."""
        from vtc import console
        from vtc.tables.provenance import footer
        from vtc.train.inputs import Inputs
        from vtc.train.processes import is_first

        if not is_first():
            console.set_verbosity(-1)
        settings = self.settings
        features = Path(self.features) if self.features else None
        inputs = Inputs(self.samples, settings, features, console.say)
        total = settings.n_steps(len(self.samples.rows)) * n_runs
        with console.progress("training", total) as advance:
            train(
                inputs=inputs,
                say=console.say,
                advance=advance,
                footer=footer(settings=settings.as_dict(), inputs=self.inputs, seed=settings.seed),
            )
