"""Where rows come from: files of several formats and Hugging Face datasets, read row by row."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vtc.data.hub import is_hub_id, open_dataset
from vtc.data.pictures import holds_pictures
from vtc.errors import InputError
from vtc.tables.json_stream import stream_values
from vtc.tables.read import footer_of, title
from vtc.tables.streams import stdin

_BATCH = 512
_PEEKED = 8
_SPOKEN = {"conversations", "messages", "texts"}


@dataclass(frozen=True)
class Choice:
    """Which rows of a Hugging Face dataset, and how it is read; `limit` holds for any source."""

    split: str | None = None
    subset: str | None = None
    streaming: bool = False
    limit: int | None = None


ALL = Choice()


@dataclass(frozen=True)
class Source:
    """Rows as they stand: where from, the image root they name, and their number if known.

    A row of JSON may be anything; `parse_row` finds fault with what is no object.
    """

    name: str
    rows: Callable[[], Iterator[Any]]
    image_root: Path | None = None
    n_rows: int | None = None

    @property
    def stem(self) -> str:
        """What the rows without an id are named after."""
        if is_hub_id(self.name):
            return self.name.split(":")[0].replace("/", "-")
        return Path(self.name).name.removesuffix(".gz").rsplit(".", 1)[0]


def open_source(name: str | Path, choice: Choice = ALL) -> Source:
    """A source by its name: a file, `-` for stdin, a folder, or a hub id.

    A file is JSON, JSON lines (both also gzipped) or Parquet: LLaVA's rows, OpenAI's messages,
    the_cauldron's texts, or a samples table. A folder is a dataset saved by `datasets` or one of
    data files. Raises InputError if it cannot be read, or is another of our tables.
    """
    name = str(name)
    path = Path(name)
    if name != "-" and (path.is_dir() or (not path.exists() and is_hub_id(name))):
        rows, n_rows = open_dataset(name, choice.split, choice.subset, choice.streaming)
        root = path.resolve() if path.is_dir() else None
        return _limited(Source(name, rows, root, n_rows), choice.limit)
    content = stdin().read() if name == "-" else b""
    file = _open(name, content)
    head = file.read(4)
    if not head.strip():
        raise InputError(f"{title(name)} is empty; expected LLaVA JSON or a samples table")
    if head == b"PAR1":
        return _limited(_parquet(name, file), choice.limit)
    file.close()
    if path.suffix.lower() == ".parquet":
        raise InputError(f"{name} is not a Parquet file (its first bytes are not PAR1)")
    root = None if name == "-" else path.resolve().parent
    packed = head.startswith(b"\x1f\x8b")
    rows = partial(_json, name, content, packed)
    return _limited(Source(name, rows, root), choice.limit)


def _open(name: str, content: bytes = b"") -> BinaryIO:
    """A file by its name, or the content of stdin."""
    if name == "-":
        return io.BytesIO(content)
    try:
        return open(name, "rb")
    except FileNotFoundError:
        raise InputError(f"{name} does not exist") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None


def _json(name: str, content: bytes, packed: bool) -> Iterator[Any]:
    with _open(name, content) as file:
        plain: Any = gzip.GzipFile(fileobj=file) if packed else file
        try:
            yield from _refusing_a_wrapper(stream_values(plain, title(name)), title(name))
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(f"{name} is a damaged or truncated gzip file") from None


def _refusing_a_wrapper(rows: Iterator[Any], name: str) -> Iterator[Any]:
    """The rows; raises InputError if the first is no row but an object that holds them in a key."""
    for number, row in enumerate(rows):
        if number == 0 and isinstance(row, dict) and not _SPOKEN & set(row):
            inside = [
                k for k, v in row.items() if isinstance(v, list) and v and isinstance(v[0], dict)
            ]
            if inside:
                raise InputError(
                    f"{name} is one object, not a list of rows; they seem to stand under its key "
                    f"'{inside[0]}': write that list into a file of its own"
                )
        yield row


def _parquet(name: str, file: BinaryIO) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def damaged(error: Exception) -> InputError:
        first = (str(error).splitlines() or ["unreadable"])[0]
        return InputError(f"{title(name)} is a damaged or truncated Parquet file: {first}")

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(error) from None
    footer = footer_of(table.schema_arrow.metadata or {}, title(name))
    kind = footer.get("table", "samples")
    if kind != "samples":
        raise InputError(f"{name}: need samples or LLaVA's rows, found table {kind}")

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in table.iter_batches(_BATCH):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(error) from None

    named = footer.get("settings", {}).get("image_root")
    beside = None if name == "-" else Path(name).resolve().parent
    return Source(name, rows, Path(named) if named else beside, table.metadata.num_rows)


def _limited(source: Source, limit: int | None) -> Source:
    if limit is None:
        return source
    n_rows = None if source.n_rows is None else min(source.n_rows, limit)
    return replace(source, rows=lambda: islice(source.rows(), limit), n_rows=n_rows)


def image_root(
    sources: Sequence[Source], images: str | Path | None, pictures: Path | None = None
) -> Path:
    """`images`, else the root that the sources name, else the folder that takes their pictures.

    A source whose first rows hold their pictures themselves names none. Raises InputError if there
    is none, it is no folder, or the sources name several.
    """
    named: dict[Path, str] = {}
    for source in sources if images is None else ():
        if source.image_root and not any(map(holds_pictures, islice(source.rows(), _PEEKED))):
            named[source.image_root.resolve()] = source.name
    if len(named) > 1:
        one, other = list(named.values())[:2]
        raise InputError(
            f"{one} and {other} have different image roots; check them apart, or give one with "
            "--images"
        )
    if images is None and not named:
        if pictures is None:
            raise InputError(
                f"{sources[0].name} holds its pictures itself or names no image root; give a "
                "folder with --save-images or --images"
            )
        return pictures
    root = Path(images) if images is not None else next(iter(named))
    if not root.is_dir():
        raise InputError(f"image root {root} is no folder; name it with --images")
    return root
