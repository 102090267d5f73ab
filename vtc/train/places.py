"""Where one run is trained and saved: its checkpoints, a trial of its last save, and that save."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vtc.errors import InputError, VtcError
from vtc.model.run import read_manifest
from vtc.train.checkpoints import MANIFEST, Checkpoints, Saving, difference
from vtc.train.folders import TRIAL, leave, training_folder
from vtc.train.processes import by_first, is_first, n_processes
from vtc.train.settings import StageSettings

Save = Callable[[Path], object]


@dataclass
class Place:
    """One run of a job: its folder, all that makes its training, and how it is saved."""

    run: Path
    identity: Mapping[str, Any]
    saving: Saving
    force: bool
    say: Callable[[str], object] = lambda line: None

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the training, in the folder beside the run."""
        return Checkpoints(training_folder(self.run), self.saving, self.identity, self.say)

    def is_finished(self) -> bool:
        """Whether the run is there already and the training is to be resumed, not done again.

        Raises InputError, naming the difference, if it was trained with other settings.
        """
        if not (self.saving.resume and (self.run / MANIFEST).is_file()):
            return False
        changed = difference(_identity_of(read_manifest(self.run)), self._told_by_manifest())
        if changed:
            raise InputError(
                f"run {self.run} is finished, with {changed}; give another -o, or --force"
            )
        self.say(f"{self.run} is finished")
        if is_first():
            # A process killed between the run and its checkpoints' removal leaves them.
            self.checkpoints.clear()
        return True

    def _told_by_manifest(self) -> dict[str, Any]:
        kept = {name: self.identity[name] for name in _IN_MANIFEST}
        return json.loads(json.dumps(kept, default=str))

    def start(self) -> None:
        """Make way for the training. Raises InputError for checkpoints it would throw away."""
        by_first(self._make_way)

    def _make_way(self) -> None:
        if self.force:
            self.checkpoints.clear()
        if not self.saving.resume:
            self.checkpoints.refuse_any()

    def try_save(self, save: Save) -> None:
        """Save the untrained run to a scratch folder: what fails at the end fails now."""
        by_first(lambda: self._try_save(save))

    def _try_save(self, save: Save) -> None:
        trial = training_folder(self.run) / TRIAL
        if self.checkpoints.exist():
            return
        try:
            with _writing(f"a trial of saving {self.run}", "make room there, then start again"):
                save(trial)
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(trial)

    def finish(self, save: Save) -> None:
        """Save the trained run, then drop its checkpoints; the first process does, others wait."""
        by_first(lambda: self._finish(save))

    def _finish(self, save: Save) -> None:
        way = "its last checkpoint is whole: " if self.checkpoints.exist() else ""
        with _writing(f"{self.run}", f"{way}make room there, then go on with --resume"):
            save(self.run)
        self.checkpoints.clear()
        leave(self.run)


@contextmanager
def _writing(what: str, way_out: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VtcError(f"{what} could not be written ({why}); {way_out}") from error


_IN_MANIFEST = (
    "settings",
    "data",
    "files",
    "encoder",
    "llm",
    "compressor",
    "visual_tokens",
    "parent",
)


def identity(
    settings: StageSettings,
    samples: Sequence[Any],
    footer: Mapping[str, Any] | None,
    *,
    encoder: str,
    llm: str,
    compressor: str,
    visual_tokens: int,
    compressor_settings: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    """All that a training follows from; `encoder` and `llm` are fingerprints.

    Two trainings with the same end in the same weights.
    """
    return {
        "settings": settings.as_dict(),
        "data": _data(footer),
        "files": _files(footer),
        "samples": len(samples),
        "encoder": encoder,
        "llm": llm,
        "compressor": compressor,
        "compressor_settings": dict(compressor_settings or {}),
        "visual_tokens": visual_tokens,
        "parent": parent,
        "processes": n_processes(),
    }


def _identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as a finished run's manifest tells."""
    about = manifest.get("footer") or {}
    return {
        "settings": about.get("settings") or {},
        "data": _data(about),
        "files": _files(about),
        "encoder": manifest["encoder"]["fingerprint"],
        "llm": manifest["llm"]["fingerprint"],
        "compressor": manifest["compressor"],
        "visual_tokens": manifest["visual_tokens"],
        "parent": manifest.get("parent"),
    }


def _data(footer: Mapping[str, Any] | None) -> list[str]:
    return [entry["sha256"] for entry in (footer or {}).get("inputs", ())]


def _files(footer: Mapping[str, Any] | None) -> list[str]:
    return [entry["path"] for entry in (footer or {}).get("inputs", ())]
