"""What a training command was asked for: inputs by name, and where the results go. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.compress.choices import Asked, check_turns
from vtc.compress.serving import fed_name, repeats_of, trained_of
from vtc.errors import InputError
from vtc.tables.atomic import refuse_existing
from vtc.train.checkpoints import BY_DEFAULT, Saving
from vtc.train.questions import check_fusing, check_questions
from vtc.train.settings import StageSettings


@dataclass(frozen=True)
class ProjectorRun:
    """One run of stage 1; no seed means that of the settings."""

    compressor: str
    visual_tokens: int
    seed: int | None = None


@dataclass(frozen=True)
class ProjectorJob:
    """What to train between the same two backbones: each compressor with each V and each seed.

    No `seeds` means one, that of the settings. `repeats` is the settings' `repeat_visual_tokens`,
    which the folders' names say.
    """

    encoder: str
    llm: str
    compressors: tuple[str, ...]
    visual_tokens: tuple[int, ...]
    out: Path
    force: bool = False
    seeds: tuple[int, ...] = ()
    repeats: int | None = None
    compressor_settings: dict[str, Any] | None = None
    saving: Saving = BY_DEFAULT
    report_to: str | None = None

    @property
    def folders(self) -> list[Path]:
        """All run folders, in the order of `runs`."""
        return [self.folder(run) for run in self.runs]

    @property
    def runs(self) -> list[ProjectorRun]:
        """All runs: seed by seed, of each seed compressor by compressor, of each V by V."""
        return [
            ProjectorRun(compressor, visual_tokens, seed)
            for seed in self.seeds or (None,)
            for compressor in self.compressors
            for visual_tokens in self.visual_tokens
        ]

    def folder(self, run: ProjectorRun) -> Path:
        """The folder of one run; its seed is named where there are several."""
        seed = f"-s{run.seed}" if len(self.seeds) > 1 else ""
        fed = fed_name(run.visual_tokens, self.repeats or 1)
        return self.out / f"{run.compressor}-{fed}{seed}"

    def refuse_mixture(self, weights: str | None, data_seed: int | None) -> None:
        """Raise InputError for several seeds with `weights`, by which each draws other samples."""
        if len(self.seeds) > 1 and weights is not None and data_seed is None:
            raise InputError(
                "--weights draws other samples for every seed; give one --seed a command, or all "
                "the same samples with --data-seed"
            )

    def check_samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise InputError for a sample without an image, which trains no compressor."""
        without = [row["sample_id"] for row in rows if not row["images"]]
        if without:
            more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
            raise InputError(
                f"sample {without[0]}{more} has no image; stage 1 trains the compressor alone and "
                "needs one in every sample: leave rows of text alone to finetune"
            )

    def check_turns(self, settings: StageSettings) -> None:
        """Raise InputError for V at which one of the runs cannot be trained in turns."""
        asked, own = settings.train_visual_tokens, self.compressor_settings or {}
        if asked is not None and "trained" in own:
            raise InputError(
                "--compressor-setting trained and --train-visual-tokens say the same; give one"
            )
        for run in self.runs:
            check_turns(run.compressor, None, run.visual_tokens, asked)
        check_elastic("trained" in own or is_elastic(asked), settings)
        if settings.objective == "align" and self.repeats not in (None, 1):
            raise InputError(
                "--objective align feeds no LLM, so that repeated visual tokens change nothing; "
                "give --repeat-visual-tokens to finetune"
            )

    def refuse_existing(self) -> None:
        """Raise InputError if any run folder may not be overwritten, or not be written at all."""
        if self.out.exists():  # else it is made when training starts
            for folder in self.folders:
                # A run that is there is finished: resuming passes over it.
                refuse_existing(folder, self.force or self.saving.resume)


@dataclass(frozen=True)
class FinetuneJob:
    """Which stage-1 runs to go on from, and where the results go: a folder each, below `out`.

    `repeats` is the settings' `repeat_visual_tokens`; none is each run's own.
    """

    runs: tuple[Path, ...]
    out: Path
    force: bool = False
    method: str = "full"
    lora_targets: tuple[str, ...] = ()
    repeats: int | None = None
    saving: Saving = BY_DEFAULT
    report_to: str | None = None

    def plan(self) -> list[tuple[Path, Path]]:
        """Pairs of (stage-1 run, output folder), checked.

        Raises InputError for a run that is not finished, two runs with one output, an output that
        exists or cannot be written, LoRA upon LoRA, or patterns of layers that match nothing.
        """
        # Loads torch, which checks that need no run should not wait for.
        from vtc.model.adapters import check_targets
        from vtc.model.run import read_manifest

        pairs: dict[Path, Path] = {}
        for run in self.runs:
            manifest = read_manifest(run)
            if manifest["weights"] == "adapter" and self.method != "full":
                raise InputError(
                    f"run {run} has LoRA weights, on which --method {self.method} cannot stand; "
                    f"make it whole first: vtc export {run} --merge -o DIR"
                )
            if self.method != "full":
                check_targets(run, self.lora_targets)
            folder = self.out / run_name(manifest, self.repeats)
            if folder in pairs:
                raise InputError(
                    f"runs {pairs[folder]} and {run} would both become {folder}; "
                    "finetune each into an -o of its own"
                )
            if folder.resolve() == run.resolve():
                raise InputError(f"run {run} would be overwritten by its own result; change -o")
            if self.out.exists():  # else it is made when training starts
                refuse_existing(folder, self.force or self.saving.resume)
            pairs[folder] = run
        return [(run, folder) for folder, run in pairs.items()]

    def check_questions(self, plan: Sequence[tuple[Path, Path]], settings: StageSettings) -> None:
        """Raise InputError where a run's compressor reads text, and the settings do not fit it."""
        from vtc.model.run import read_manifest

        compressors = [read_manifest(run)["compressor"] for run, _ in plan]
        check_questions(compressors, settings)
        check_fusing(compressors, settings)

    def check_turns(self, plan: Sequence[tuple[Path, Path]], settings: StageSettings) -> None:
        """Raise InputError for V at which one of the runs cannot be trained in turns."""
        from vtc.model.run import read_manifest

        asked = settings.train_visual_tokens
        for run, _ in plan:
            manifest = read_manifest(run)
            rows, columns = manifest["shapes"]["grid"]
            own = manifest["visual_tokens"]
            check_turns(manifest["compressor"], (rows, columns), own, asked)
            check_elastic(is_elastic(trained_of(manifest) if asked is None else asked), settings)


def is_elastic(asked: Asked | None) -> bool:
    """Whether a training has several V."""
    return asked is not None and (asked == "published" or len(asked) > 1)


def check_elastic(elastic: bool, settings: StageSettings) -> None:
    """Raise InputError for settings that do not go with several V, if a training has them."""
    if elastic and settings.objective == "align":
        raise InputError(
            "--objective align matches the cells of one V; train at several by --objective lm, or "
            "in finetune"
        )
    if elastic and settings.compile:
        raise InputError(
            "--compile compiles for shapes that stay, and an elastic training has several V; "
            "leave it out"
        )


def run_name(manifest: dict[str, Any], repeats: int | None = None) -> str:
    """The folder of a finetuned run: LLM, compressor, V, and how often it is fed."""
    fed = fed_name(manifest["visual_tokens"], repeats or repeats_of(manifest))
    return f"{manifest['llm']['name']}-{manifest['compressor']}-{fed}"
