"""Reading samples for training: checked samples tables, LLaVA JSON as it stands, datasets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtc.data.conversations import RowFault, parse_row
from vtc.data.mixture import mix, parse_weights
from vtc.data.pictures import IN_THE_ROW
from vtc.data.sources import Source, open_source
from vtc.errors import InputError


class Samples(NamedTuple):
    """Rows of the samples table and the root their image paths are relative to."""

    rows: list[dict[str, Any]]
    image_root: Path


def read_samples(
    sources: Sequence[str | Path],
    images: str | Path | None = None,
    *,
    weights: str | None = None,
    seed: int = 0,
) -> Samples:
    """Samples of several sources (see `open_source`), in order; images are not opened here.

    `weights` makes one epoch of a mixture of them (see `mixture`). The image root is `images`,
    else the one that the sources name, else the folder they stand in; of several roots the
    folder that all have in common, the paths changed to match.

    Raises InputError naming source and row for a row that `check-data` would reject.
    """
    shares = parse_weights(weights, [str(source) for source in sources])
    opened = [open_source(source) for source in sources]
    parts = [_rows(source) for source in opened]
    if not any(parts):
        raise InputError(f"{', '.join(map(str, sources))}: no samples")
    root = _one_root(opened, parts, images)
    return Samples(mix(parts, shares, seed), root)


def _rows(source: Source) -> list[dict[str, Any]]:
    rows = []
    for index, row in enumerate(source.rows()):
        try:
            rows.append(parse_row(row, f"{source.stem}-{index}"))
        except RowFault as fault:
            way = f"'vtc check-data {source.name} -o FILE.parquet'"
            what = (
                f"its image stands in the row itself; {way} makes files of such pictures, and"
                " FILE.parquet is read here"
                if fault.reason == IN_THE_ROW
                else f"{fault.reason}; {way} sets such rows aside"
            )
            raise InputError(f"{source.name}, row {index}: {what}") from None
    return rows


def _one_root(
    sources: Sequence[Source], parts: Sequence[list[dict[str, Any]]], images: str | Path | None
) -> Path:
    """The image root of all sources; their paths are made relative to it."""
    if images is not None:
        return _folder(Path(images))
    with_images = [
        (source, part)
        for source, part in zip(sources, parts, strict=True)
        if any(row["images"] for row in part)
    ]
    roots = [_folder(_root_of(source)) for source, _ in with_images]
    if not roots:
        return sources[0].image_root or Path.cwd()
    if len(set(roots)) == 1:
        return roots[0]
    common = Path(os.path.commonpath(roots))
    if common == Path(common.anchor):
        raise InputError(
            f"{with_images[0][0].name} and {with_images[1][0].name} have image roots without a "
            "folder in common; bring them below one, and name it with --images"
        )
    for root, (source, part) in zip(roots, with_images, strict=True):
        for row in part:
            row["images"] = [_moved(path, root, common, source.name) for path in row["images"]]
    return common


def _moved(path: str, root: Path, common: Path, source: str) -> str:
    """A path below `root` as one below `common`; raises InputError if it leaves its root."""
    full = os.path.normpath(root / path)
    if os.path.commonpath([full, root]) != str(root):
        raise InputError(f"{source}: image {path} leaves the image root {root}")
    return os.path.relpath(full, common)


def _root_of(source: Source) -> Path:
    if source.image_root is None:
        raise InputError(f"{source.name} names no image root; give it with --images")
    return source.image_root


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"image root {root} is no folder; name it with --images")
    return root.resolve()
