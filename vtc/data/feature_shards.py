"""Writing a feature cache shard by shard, so that an interrupted encoding can go on.

`NAME.encoding` stands beside the cache `NAME` until it is whole: `plan.json` says what is encoded,
and every finished shard stands there with its own table of images.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.data.features import DTYPES, INDEX, MANIFEST, VERSION, Layout, checksum
from vtc.data.image_files import FileId, file_id, list_hash
from vtc.errors import InputError
from vtc.tables.atomic import making_parents, refuse_existing, replacing
from vtc.tables.lock import Held, sign, take

SHARD_BYTES = 512 << 20
"""What a shard holds at most, if it is not told otherwise."""

PLAN, LOCK = "plan.json", "lock"


@dataclass(frozen=True)
class Plan:
    """What a cache is made of: the images in order, their root, the layout, and by what."""

    root: Path
    images: Sequence[str]
    layout: Layout
    encoder: dict[str, Any]
    preprocessing: str
    footer: dict[str, Any] = field(default_factory=dict)
    images_per_shard: int | None = None

    @property
    def per_shard(self) -> int:
        """Images a shard."""
        return self.images_per_shard or max(1, SHARD_BYTES // self.layout.n_bytes(1))

    def shards(self) -> list[Sequence[str]]:
        """The images of each shard."""
        step = self.per_shard
        return [self.images[at : at + step] for at in range(0, len(self.images), step)]

    def facts(self) -> dict[str, Any]:
        """What two encodings must share for one to go on with the other's shards."""
        layout = asdict(self.layout)
        facts = {
            "encoder": self.encoder["fingerprint"],
            "preprocessing": self.preprocessing,
            "image_root": str(self.root),
            "images": list_hash(self.images),
            "images_per_shard": self.per_shard,
            **layout,
        }
        return json.loads(json.dumps(facts))


Encode = Callable[[Sequence[str]], Iterable[Tensor]]
"""Images -> their features, a batch [b, n_levels, N, D] at a time, in any float type."""


def write_features(
    folder: str | Path, plan: Plan, encode: Encode, *, force: bool = False, resume: bool = False
) -> None:
    """Write a feature folder. It appears whole or not at all.

    Raises InputError if the folder exists and `force` is not set, if an unfinished encoding stands
    beside it and neither `resume` nor `force` is set, or was begun with other settings, and for
    an image that fails. Finished shards stay for `resume`, whatever stops the encoding.
    """
    folder = Path(folder)
    refuse_existing(folder, force, folder=True)
    staging = folder.with_name(folder.name + ".encoding")
    with making_parents(folder.absolute()), _locked(staging):
        _begin(staging, plan, force=force, resume=resume)
        for number, images in enumerate(plan.shards()):
            if not _facts_file(staging, number).is_file():
                with _hint(staging):
                    _write_shard(staging, number, plan, images, encode(images))
        _finish(staging, folder, plan)


def finished_images(folder: str | Path, plan: Plan) -> int:
    """How many images an unfinished encoding has behind it."""
    staging = Path(folder).with_name(Path(folder).name + ".encoding")
    done = [len(s) for n, s in enumerate(plan.shards()) if _facts_file(staging, n).is_file()]
    return sum(done)


@contextmanager
def _locked(staging: Path) -> Iterator[None]:
    """Hold the folder of an encoding; without a finished shard it goes when left."""
    staging.mkdir(exist_ok=True)
    try:
        descriptor = take(staging / LOCK)
    except Held as holder:
        raise InputError(
            f"{staging} is being written by {holder}; wait for it, or give another -o"
        ) from None
    try:
        sign(descriptor)
        yield
    finally:
        if staging.is_dir() and not list(staging.glob("shard-*.json")):
            shutil.rmtree(staging)
        os.close(descriptor)


def _begin(staging: Path, plan: Plan, *, force: bool, resume: bool) -> None:
    """Leave in `staging` what may be gone on with: nothing, or whole shards of this very plan."""
    facts, path = plan.facts(), staging / PLAN
    n_done = len(list(staging.glob("shard-*.json")))
    if n_done and path.is_file() and not force:
        if not resume:
            raise InputError(
                f"{staging} holds {n_done} of {len(plan.shards())} shards of an unfinished "
                "encoding; --resume goes on with it, --force starts anew"
            )
        begun = json.loads(path.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if begun.get(name) != value:
                raise InputError(
                    f"{staging} was begun with {name} {_short(begun.get(name))}, not "
                    f"{_short(value)}; --force starts anew"
                )
        _drop_damaged(staging, plan)
        return
    for entry in staging.iterdir():
        if entry.name != LOCK:
            entry.unlink()
    with replacing(path) as partial:
        partial.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _drop_damaged(staging: Path, plan: Plan) -> None:
    """Forget shards whose bytes are not those that were written; they are encoded again."""
    for number in range(len(plan.shards())):
        path = _facts_file(staging, number)
        if not path.is_file():
            continue
        facts, shard = json.loads(path.read_text(encoding="utf-8")), _shard_file(staging, number)
        if not shard.is_file() or _sha256(shard) != facts["sha256"]:
            path.unlink()


@contextmanager
def _hint(staging: Path) -> Iterator[None]:
    """Say, when an encoding fails, that what is done is not lost."""
    try:
        yield
    except InputError as error:
        n_done = len(list(staging.glob("shard-*.json")))
        if not n_done:
            raise
        kept = f"{n_done} finished shard{'s' * (n_done != 1)} stay in {staging}: --resume goes on"
        # The same error: which image it was is told by its type.
        error.args = (f"{error} ({kept})",)
        raise


def _write_shard(
    staging: Path, number: int, plan: Plan, images: Sequence[str], batches: Iterable[Tensor]
) -> None:
    """One shard, then its facts: with them it is finished."""
    sums: list[int] = []
    digest = hashlib.sha256()
    file = _shard_file(staging, number)
    with replacing(file) as partial, open(partial, "wb") as out:
        for batch in batches:
            stored = _stored(batch, plan.layout, images[len(sums) :])
            for features in stored:
                sums.append(checksum(features))
            data = stored.view(torch.uint8).numpy().data
            digest.update(data)
            out.write(data)
    if len(sums) != len(images):
        raise ValueError(f"features of {len(sums)} images for {len(images)}")
    facts = {
        "sha256": digest.hexdigest(),
        "crc32": sums,
        "files": [asdict(file_id(plan.root, image)) for image in images],
    }
    with replacing(_facts_file(staging, number)) as partial:
        partial.write_text(json.dumps(facts), encoding="utf-8")


def _stored(batch: Tensor, layout: Layout, images: Sequence[str]) -> Tensor:
    """A batch in the type of the cache; raises InputError if a number is too large for it."""
    if tuple(batch.shape[1:]) != layout.shape:
        raise ValueError(f"features {tuple(batch.shape)} do not fit {layout.shape}")
    stored = batch.to("cpu", DTYPES[layout.dtype]).contiguous()
    finite = stored.flatten(1).isfinite().all(1)
    if not finite.all():
        image = images[int(finite.logical_not().nonzero()[0])]
        way_out = "store --dtype bf16" if layout.dtype == "fp16" else "check the encoder's weights"
        raise InputError(f"image {image}: features pass the range of {layout.dtype}; {way_out}")
    return stored


def _finish(staging: Path, folder: Path, plan: Plan) -> None:
    """Join the shards' facts into the index and the manifest, and put the folder in its place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [
        json.loads(_facts_file(staging, number).read_text(encoding="utf-8"))
        for number in range(len(plan.shards()))
    ]
    files = [FileId(**entry) for part in parts for entry in part["files"]]
    columns = {
        "image": pa.array(list(plan.images), pa.string()),
        "size": pa.array([entry.size for entry in files], pa.int64()),
        "mtime_ns": pa.array([entry.mtime_ns for entry in files], pa.int64()),
        "sha256": pa.array([entry.sha256 for entry in files], pa.string()),
        "crc32": pa.array([crc for part in parts for crc in part["crc32"]], pa.uint32()),
    }
    with replacing(staging / INDEX) as partial:
        pq.write_table(pa.table(columns), partial)
    shards = [
        {"file": _shard_file(staging, number).name, "n_images": len(images),
         "sha256": parts[number]["sha256"]}
        for number, images in enumerate(plan.shards())
    ]  # fmt: skip
    layout = plan.layout
    facts = {
        "features_version": VERSION,
        "encoder": plan.encoder,
        "preprocessing": plan.preprocessing,
        "image_root": str(plan.root),
        "images": list_hash(plan.images),
        "footer": plan.footer,
        **asdict(layout),
        "encoder_grid": layout.encoder_grid or layout.grid,
        "n_images": len(plan.images),
        "images_per_shard": plan.per_shard,
        "shards": shards,
    }
    with replacing(staging / MANIFEST) as partial:
        partial.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(staging, folder)
    for left in (folder / PLAN, folder / LOCK, *folder.glob("shard-*.json")):
        left.unlink()
    if old.is_dir():
        shutil.rmtree(old)
    elif old.exists():
        old.unlink()


def _shard_file(staging: Path, number: int) -> Path:
    return staging / f"shard-{number:05d}.bin"


def _facts_file(staging: Path, number: int) -> Path:
    return staging / f"shard-{number:05d}.json"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."
