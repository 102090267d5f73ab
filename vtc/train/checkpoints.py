"""Checkpoints: numbered folders, each whole on disk or not there at all. What is in them is not
known here; no torch.

A checkpoint is written beside its place, its manifest (sizes and SHA-256 of all its files) last,
synced to disk, and renamed. One that was damaged since is refused, and the one before it taken.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.errors import InputError, VtcError
from vtc.tables.atomic import replacing_folder
from vtc.tables.provenance import file_sha

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written and how many stay; they change nothing of what is trained.

    `every` counts optimizer steps; 0 writes one only when the training is told to stop.
    """

    every: int = 500
    keep: int = 2
    resume: bool = False

    def __post_init__(self) -> None:
        if self.every < 0:
            raise InputError(f"--save-every {self.every} must be at least 0")
        if self.keep < 1:
            raise InputError(f"--keep {self.keep} must be at least 1")


BY_DEFAULT = Saving()
"""Every 500 steps, two kept, started anew: the defaults of the flags."""


class Checkpoints:
    """The checkpoints of one run in `folder`; `identity` is all that makes its training."""

    def __init__(
        self,
        folder: Path,
        saving: Saving,
        identity: Mapping[str, Any],
        say: Callable[[str], object] = lambda line: None,
    ):
        self.folder = folder
        self.saving = saving
        self.identity = json.loads(json.dumps(identity, default=str))
        self.say = say

    def due(self, step: int, last: bool) -> bool:
        """Whether a checkpoint belongs after this step.

        The last step of a training long enough to have one gets one: should the run itself fail to
        be written, nothing is lost.
        """
        every = self.saving.every
        return every > 0 and step >= every and (last or step % every == 0)

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """Let `fill` put files into an empty folder, and make it the checkpoint of `step`.

        Older ones than the last `keep` go; room is made before, but never of the only one. Raises
        VtcError if it cannot be written; the earlier ones are whole then.
        """
        path = self.folder / f"step-{step:08d}"
        self._thin(max(self.saving.keep - 1, 1), path)
        try:
            with replacing_folder(path, force=True) as staging:
                fill(staging)
                _seal(staging, step, self.identity)
        except (OSError, RuntimeError, _safetensor_error()) as error:
            raise VtcError(self._unwritten(step, error)) from error
        self._thin(self.saving.keep - 1, path)
        return path

    def newest(self) -> Path | None:
        """The newest whole checkpoint; None without any.

        Damaged ones are named and passed over. Raises InputError if none of them is whole, or
        naming the difference if the training was begun with other settings.
        """
        damaged = []
        for path in reversed(self._paths()):
            fault = _fault(path)
            if fault is None:
                self._check_identity(path)
                return path
            self.say(f"checkpoint {path} is damaged ({fault}); the one before it is taken")
            damaged.append(path)
        if damaged:
            raise InputError(f"no checkpoint in {self.folder} is whole; start again with --force")
        return None

    def exist(self) -> bool:
        """Whether there is any checkpoint, whole or not."""
        return bool(self._paths())

    def refuse_any(self) -> None:
        """Raise InputError if there is a checkpoint, which a new start would throw away."""
        paths = self._paths()
        if paths:
            raise InputError(
                f"{paths[-1]} is a checkpoint of an unfinished training; go on with --resume, or "
                "start again with --force"
            )

    def clear(self) -> None:
        """Remove all checkpoints."""
        for path in self._paths():
            shutil.rmtree(path)

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _thin(self, n_kept: int, spared: Path) -> None:
        others = [path for path in self._paths() if path != spared]
        for path in others[: max(len(others) - n_kept, 0)]:
            shutil.rmtree(path)

    def _unwritten(self, step: int, error: BaseException) -> str:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        left = self._paths()
        way = f"go on from {left[-1].name} with --resume" if left else "then start again"
        return (
            f"the checkpoint of step {step} could not be written to {self.folder} ({why}); "
            f"make room there, {way}"
        )

    def _check_identity(self, path: Path) -> None:
        begun = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["identity"]
        changed = difference(begun, self.identity)
        if changed:
            raise InputError(
                f"{path} is of a training with {changed}; resume with the settings it was begun "
                "with, or start again with --force"
            )


def difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as words; None if all are the same. Both as from JSON.

    Hashes are not shown: what they are of is named. `files`, the names of the data, may differ.
    """
    old, new = _flat(begun), _flat(now)
    for name in [*new, *(name for name in old if name not in new)]:
        if name != "files" and old.get(name) != new.get(name):
            if name == "data":
                return _other_data(begun, now)
            if name in _FINGERPRINTS:
                return f"another {_FINGERPRINTS[name]}"
            return f"{name} = {_brief(old.get(name))}, not {_brief(new.get(name))}"
    return None


_FINGERPRINTS = {"encoder": "encoder", "llm": "LLM"}


def _other_data(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the files of two trainings differ: by name, by number of samples, or by content."""
    old, new = _data_in_words(begun), _data_in_words(now)
    if old == new:
        return f"another content of {new} than there is now"
    return f"other data ({old}), not {new}"


def _data_in_words(identity: Mapping[str, Any]) -> str:
    names = [str(name).rsplit("/", 1)[-1] for name in identity.get("files", ())]
    named = _brief(", ".join(names)) if names else "files of unknown name"
    count = identity.get("samples")
    return named if count is None else f"{named}: {count} samples"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _seal(folder: Path, step: int, identity: Mapping[str, Any]) -> None:
    """Write the manifest over all files of a folder."""
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": file_sha(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = {"step": step, "identity": identity, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        for name, entry in files.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
        for name, entry in files.items():
            if file_sha(folder / name) != entry["sha256"]:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"no valid {MANIFEST}"
    return None


def _safetensor_error() -> type[Exception]:
    """safetensors' own error, which derives from Exception alone."""
    from safetensors import SafetensorError

    return SafetensorError
