"""The feature cache: the frozen encoder's hidden states of every image, read from disk by page."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.errors import InputError
from vtc.tables.atomic import replacing_folder

VERSION = 1
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
FEATURES, INDEX, MANIFEST = "features.bin", "index.json", "manifest.json"


@dataclass(frozen=True)
class Layout:
    """The shape of a cache: levels of the encoder, its grid and width, and the stored type."""

    levels: tuple[int, ...]
    grid: tuple[int, int]
    width: int
    dtype: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: (levels, patches, width)."""
        return len(self.levels), self.grid[0] * self.grid[1], self.width

    def n_bytes(self, n_images: int) -> int:
        """Size of features.bin for so many images."""
        n_levels, n_patches, width = self.shape
        return n_images * n_levels * n_patches * width * DTYPES[self.dtype].itemsize


class FeatureStore:
    """A finished feature folder. Opening it maps the file; pages are read as images are asked."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], layout: Layout, rows: dict[str, int]
    ):
        self.folder = folder
        self.manifest = manifest
        self.layout = layout
        self._rows = rows
        shape = (len(rows), *layout.shape)
        flat = torch.from_file(
            str(folder / FEATURES),
            shared=False,
            size=math.prod(shape),
            dtype=DTYPES[layout.dtype],
        )
        self._features = flat.view(shape)

    @classmethod
    def open(cls, folder: str | Path) -> "FeatureStore":
        """Open a feature folder; raises InputError if it is none, unfinished or damaged."""
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            what = "has no manifest.json" if folder.is_dir() else "does not exist"
            raise InputError(f"features {folder}: {what}; make them with 'vtc encode'")
        manifest, rows = (_read_json(folder / name) for name in (MANIFEST, INDEX))
        if manifest.get("features_version") != VERSION:
            raise InputError(f"{folder} is no feature folder of version {VERSION}; encode again")
        layout = Layout(
            tuple(manifest["levels"]), tuple(manifest["grid"]), manifest["width"], manifest["dtype"]
        )
        features = folder / FEATURES
        size = features.stat().st_size if features.is_file() else 0
        if size != layout.n_bytes(len(rows)):
            raise InputError(
                f"features {folder}: {FEATURES} has {size} bytes in place of "
                f"{layout.n_bytes(len(rows))}; it is damaged, encode again"
            )
        return cls(folder, manifest, layout, rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image: str) -> bool:
        return image in self._rows

    def check(self, fingerprint: str, preprocessing: str) -> None:
        """Raise InputError unless the features were made by this very encoder and preprocessing."""
        encoder = self.manifest["encoder"]
        if encoder["fingerprint"] != fingerprint:
            raise InputError(
                f"features {self.folder} were made by another encoder ({encoder['name']} at "
                f"{encoder['path']}); encode again with this one"
            )
        if self.manifest["preprocessing"] != preprocessing:
            raise InputError(
                f"features {self.folder} were made with other image preprocessing; encode again"
            )

    def reader(self, levels: Sequence[int]) -> "LevelReader":
        """What reads these levels, in this order; raises InputError for one not in the cache."""
        for level in levels:
            if level not in self.layout.levels:
                has = ", ".join(map(str, self.layout.levels))
                raise InputError(
                    f"features {self.folder} lack level {level} (they hold {has}); "
                    f"encode again with --levels {','.join(map(str, levels))}"
                )
        return LevelReader(self, [self.layout.levels.index(level) for level in levels])

    def get(self, images: Sequence[str], picked: Sequence[int] | None = None) -> Tensor:
        """Features of images [n_images, n_levels, N, D], a copy in the stored type.

        `picked` are positions in `layout.levels`. Raises InputError for an image not in the cache.
        """
        try:
            rows = torch.tensor([self._rows[image] for image in images], dtype=torch.long)
        except KeyError as error:
            raise InputError(
                f"features {self.folder} lack image {error.args[0]}; encode it along"
            ) from None
        if picked is None:
            return self._features[rows]
        return self._features[rows[:, None], torch.tensor(picked)]


@dataclass(frozen=True)
class LevelReader:
    """Some levels of a store; calling it gives features [n_images, n_levels, N, D]."""

    store: FeatureStore
    picked: Sequence[int]

    def __call__(self, images: Sequence[str]) -> Tensor:
        """The features of images, in their order."""
        whole = list(self.picked) == list(range(len(self.store.layout.levels)))
        return self.store.get(images, None if whole else self.picked)


def write_features(
    folder: str | Path,
    images: Sequence[str],
    batches: Iterable[Tensor],
    layout: Layout,
    manifest: dict[str, Any],
    *,
    force: bool = False,
) -> None:
    """Write a feature folder, whole or not at all.

    `batches` gives the features [b, n_levels, N, D] of all images in order, in any float type;
    `manifest` says by what they were made: encoder, preprocessing, image_root, footer.

    Raises InputError if the folder exists and `force` is not set, ValueError if the batches do
    not add up to the images.
    """
    with replacing_folder(folder, force) as staging:
        written = 0
        with open(staging / FEATURES, "wb") as file:
            for batch in batches:
                if tuple(batch.shape[1:]) != layout.shape:
                    raise ValueError(f"features {tuple(batch.shape)} do not fit {layout.shape}")
                stored = batch.to("cpu", DTYPES[layout.dtype]).contiguous()
                file.write(stored.view(torch.uint8).numpy().data)
                written += len(batch)
        if written != len(images):
            raise ValueError(f"features of {written} images for {len(images)}")
        rows = {image: row for row, image in enumerate(images)}
        (staging / INDEX).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        facts = {
            "features_version": VERSION,
            **manifest,
            "levels": layout.levels,
            "grid": layout.grid,
            "width": layout.width,
            "dtype": layout.dtype,
            "n_images": len(images),
        }
        text = json.dumps(facts, indent=2, default=str)
        (staging / MANIFEST).write_text(text + "\n", encoding="utf-8")


def preprocessing_hash(image_processor: Any) -> str:
    """SHA-256 of an image processor's settings, in hex; names of classes and files not counted."""
    settings = {
        key: value
        for key, value in image_processor.to_dict().items()
        if not key.startswith("_") and key not in ("image_processor_type", "processor_class")
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); encode again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object; encode again")
    return found
