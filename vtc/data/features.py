"""The feature cache: the frozen encoder's hidden states of every image, read from disk by page."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtc.data.image_files import FileId, check_unchanged
from vtc.errors import InputError

VERSION = 2
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
INDEX, MANIFEST = "index.parquet", "manifest.json"


@dataclass(frozen=True)
class Layout:
    """The shape of a cache: levels of the encoder, the stored grid and width, the stored type.

    `encoder_grid` is the encoder's own grid where `grid` holds means of its windows.
    """

    levels: tuple[int, ...]
    grid: tuple[int, int]
    width: int
    dtype: str
    encoder_grid: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: (levels, patches, width)."""
        return len(self.levels), self.grid[0] * self.grid[1], self.width

    @property
    def pooled(self) -> bool:
        """Whether it holds means of windows of patches in place of the patches."""
        return self.encoder_grid is not None and self.encoder_grid != self.grid

    def n_bytes(self, n_images: int) -> int:
        """Bytes of the features of so many images."""
        n_levels, n_patches, width = self.shape
        return n_images * n_levels * n_patches * width * DTYPES[self.dtype].itemsize


class FeatureStore:
    """A finished feature folder. Shards are mapped; pages are read as images are asked.

    The first time that an image's features are read, their checksum is compared.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], layout: Layout, index: Any):
        self.folder = folder
        self.manifest = manifest
        self.layout = layout
        self._index = index
        self._rows = {image: row for row, image in enumerate(index.column("image").to_pylist())}
        self._crc = index.column("crc32").to_numpy()
        self._unread = np.ones(len(self._rows), dtype=bool)
        self._shards: dict[int, Tensor] = {}

    @classmethod
    def open(cls, folder: str | Path) -> "FeatureStore":
        """Open a feature folder; raises InputError if it is none, unfinished or damaged."""
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            what = "has no manifest.json" if folder.is_dir() else "does not exist"
            raise InputError(f"features {folder}: {what}; make them with 'vtc encode'")
        manifest = _read_manifest(folder / MANIFEST)
        if manifest.get("features_version") != VERSION:
            raise InputError(f"{folder} is no feature folder of version {VERSION}; encode again")
        layout = Layout(
            tuple(manifest["levels"]),
            tuple(manifest["grid"]),
            manifest["width"],
            manifest["dtype"],
            tuple(manifest["encoder_grid"]),
        )
        for shard in manifest["shards"]:
            file = folder / shard["file"]
            size = file.stat().st_size if file.is_file() else 0
            if size != layout.n_bytes(shard["n_images"]):
                raise InputError(
                    f"features {folder}: {shard['file']} has {size} bytes in place of "
                    f"{layout.n_bytes(shard['n_images'])}; it is damaged, encode again"
                )
        return cls(folder, manifest, layout, _read_index(folder / INDEX, manifest["n_images"]))

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

    def check_images(self, root: str | Path, images: Sequence[str]) -> None:
        """Raise InputError for an image whose file is no longer the one that was encoded.

        Raises InputError for one not in the cache, too.
        """
        if not images:
            return
        rows = self._rows_of(images).tolist()
        part = self._index.take(rows).to_pydict()
        known = {
            image: FileId(*facts)
            for image, *facts in zip(
                *(part[name] for name in ("image", "size", "mtime_ns", "sha256")), strict=True
            )
        }
        check_unchanged(f"features {self.folder}", root, images, known)

    def check_made_for(self, layout: Layout, images: Sequence[str]) -> None:
        """Raise InputError, naming the difference, unless it holds just that of these images."""
        wanted = {"levels": layout.levels, "grid": layout.grid, "dtype": layout.dtype}
        for name, value in wanted.items():
            has = getattr(self.layout, name)
            if has != value:
                raise InputError(
                    f"features {self.folder} are finished, with {name} = {has}, not {value}; "
                    "give another -o, or --force"
                )
        lacking = next((image for image in images if image not in self), None)
        if lacking is not None:
            raise InputError(
                f"features {self.folder} are finished, without image {lacking}; give another -o, "
                "or --force"
            )

    def reader(self, levels: Sequence[int]) -> "LevelReader":
        """What reads these levels, in this order; raises InputError for one not in the cache."""
        for level in levels:
            if level not in self.layout.levels:
                has = ", ".join(map(str, self.layout.levels))
                if self.layout.pooled:
                    raise InputError(
                        f"features {self.folder} lack level {level} and are pooled (holding "
                        f"means of level {has}); encode again without --pool"
                    )
                raise InputError(
                    f"features {self.folder} lack level {level} (they hold {has}); "
                    f"encode again with --levels {','.join(map(str, levels))}"
                )
        return LevelReader(self, [self.layout.levels.index(level) for level in levels])

    def get(self, images: Sequence[str], picked: Sequence[int] | None = None) -> Tensor:
        """Features of images [n_images, n_levels, N, D], a copy in the stored type.

        `picked` are positions in `layout.levels`. Raises InputError for an image not in the cache,
        and for a shard that is damaged.
        """
        rows = self._rows_of(images)
        n_levels, n_patches, width = self.layout.shape
        chosen = list(range(n_levels)) if picked is None else list(picked)
        shape = (len(rows), len(chosen), n_patches, width)
        found = torch.empty(shape, dtype=DTYPES[self.layout.dtype])
        per_shard = self.manifest["images_per_shard"]
        for place, row in enumerate(rows.tolist()):
            features = self._shard(row // per_shard)[row % per_shard]
            if self._unread[row]:
                self._compare(row, features)
            found[place] = features if picked is None else features[chosen]
        return found

    def _rows_of(self, images: Sequence[str]) -> np.ndarray:
        try:
            return np.array([self._rows[image] for image in images], dtype=np.int64)
        except KeyError as error:
            raise InputError(
                f"features {self.folder} lack image {error.args[0]}; encode it along"
            ) from None

    def _shard(self, number: int) -> Tensor:
        """The features of one shard, mapped."""
        if number not in self._shards:
            shard = self.manifest["shards"][number]
            shape = (shard["n_images"], *self.layout.shape)
            dtype = DTYPES[self.layout.dtype]
            file = str(self.folder / shard["file"])
            size = int(np.prod(shape))
            self._shards[number] = torch.from_file(file, shared=False, size=size, dtype=dtype).view(
                shape
            )
        return self._shards[number]

    def _compare(self, row: int, features: Tensor) -> None:
        if checksum(features) != self._crc[row]:
            shard = self.manifest["shards"][row // self.manifest["images_per_shard"]]["file"]
            raise InputError(
                f"features {self.folder}: {shard} is damaged (its checksum differs); encode again"
            )
        self._unread[row] = False


@dataclass(frozen=True)
class LevelReader:
    """Some levels of a store; calling it gives features [n_images, n_levels, N, D]."""

    store: FeatureStore
    picked: Sequence[int]

    def __call__(self, images: Sequence[str]) -> Tensor:
        """The features of images, in their order."""
        whole = list(self.picked) == list(range(len(self.store.layout.levels)))
        return self.store.get(images, None if whole else self.picked)


def checksum(features: Tensor) -> int:
    """CRC-32 of the bytes of contiguous features."""
    return zlib.crc32(features.view(torch.uint8).numpy().data)


def preprocessing_hash(image_processor: Any) -> str:
    """SHA-256 of an image processor's settings, in hex; names of classes and files not counted."""
    settings = {
        key: value
        for key, value in image_processor.to_dict().items()
        if not key.startswith("_") and key not in ("image_processor_type", "processor_class")
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); encode again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object; encode again")
    return found


def _read_index(path: Path, n_images: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        index = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}); encode again") from None
    if len(index) != n_images:
        raise InputError(f"{path} has {len(index)} rows for {n_images} images; encode again")
    return index
