"""What a training command was asked for: inputs by name, and where the results go. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.tables.atomic import refuse_existing
from vtc.train.checkpoints import BY_DEFAULT, Saving


@dataclass(frozen=True)
class ProjectorJob:
    """What to train: one compressor for each V, all between the same two backbones."""

    encoder: str
    llm: str
    compressor: str
    visual_tokens: tuple[int, ...]
    out: Path
    force: bool = False
    compressor_settings: dict[str, Any] | None = None
    saving: Saving = BY_DEFAULT
    report_to: str | None = None

    @property
    def folders(self) -> list[Path]:
        """All run folders, in the order of V."""
        return [self.folder(visual_tokens) for visual_tokens in self.visual_tokens]

    def folder(self, visual_tokens: int) -> Path:
        """The run folder of one V."""
        return self.out / f"{self.compressor}-v{visual_tokens}"

    def refuse_existing(self) -> None:
        """Raise InputError if any run folder may not be overwritten, or not be written at all."""
        if self.out.exists():  # else it is made when training starts
            for folder in self.folders:
                # A run that is there is finished: resuming passes over it.
                refuse_existing(folder, self.force or self.saving.resume)


@dataclass(frozen=True)
class FinetuneJob:
    """Which stage-1 runs to go on from, and where the results go: a folder each, below `out`."""

    runs: tuple[Path, ...]
    out: Path
    force: bool = False
    method: str = "full"
    lora_targets: tuple[str, ...] = ()
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
            folder = self.out / run_name(manifest)
            if folder in pairs:
                raise InputError(f"runs {pairs[folder]} and {run} would both become {folder}")
            if folder.resolve() == run.resolve():
                raise InputError(f"run {run} would be overwritten by its own result; change -o")
            if self.out.exists():  # else it is made when training starts
                refuse_existing(folder, self.force or self.saving.resume)
            pairs[folder] = run
        return [(run, folder) for folder, run in pairs.items()]


def run_name(manifest: dict[str, Any]) -> str:
    """The folder of a finetuned run: LLM, compressor and V."""
    return f"{manifest['llm']['name']}-{manifest['compressor']}-v{manifest['visual_tokens']}"
