"""Pictures that a row holds itself (bytes, base64, data URLs), and writing them out as files.

A picture's file is named by the hash of its bytes, so equal pictures become one file.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vtc.data.faults import RowFault
from vtc.errors import InputError
from vtc.tables.atomic import replacing

Keep = Callable[[bytes], str]
"""Takes a picture's bytes and gives the path it is known by from then on."""

_KINDS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


_LEAST_BASE64 = 40
"""No picture is shorter in base64: a shorter text is a path."""


def suffix_of(head: bytes) -> str | None:
    """The suffix that the first 16 bytes of an image file stand for, None if unknown."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((suffix for magic, suffix in _KINDS if head.startswith(magic)), None)


IN_THE_ROW = "its image is no file but stands in the row; vtc check-data makes it a file"
"""Why a command that writes no pictures refuses a row."""


def refuse(picture: bytes) -> str:
    """The Keep of commands that write no pictures."""
    raise RowFault(IN_THE_ROW)


class Pictures:
    """Writes pictures into a folder below the image root, each once and whole."""

    def __init__(self, folder: Path, root: Path):
        self.folder = folder
        self.root = root
        self._known: set[str] = set()

    def __call__(self, picture: bytes) -> str:
        """Write a picture unless it is there; its path below the image root.

        Raises RowFault for bytes that are no image, InputError if the folder is not below the root.
        """
        suffix = suffix_of(picture[:16])
        if suffix is None:
            raise RowFault("the bytes of its image are no JPEG, PNG, GIF, WebP, BMP or TIFF")
        digest = hashlib.sha256(picture).hexdigest()[:32]
        file = self.folder / digest[:2] / f"{digest}.{suffix}"
        if digest not in self._known and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as partial:
                partial.write_bytes(picture)
        self._known.add(digest)
        return self._below_root(file)

    def _below_root(self, file: Path) -> str:
        path = os.path.relpath(file, self.root)
        if path.startswith(os.pardir):
            raise InputError(
                f"rows hold pictures, but {self.folder} is not below the image root {self.root}; "
                "name such a folder with --save-images, or check these rows apart from the others"
            )
        return path


def holds_pictures(row: Any) -> bool:
    """Whether a row holds pictures itself, and not only their paths."""
    if not isinstance(row, Mapping):
        return False
    listed = [row.get("image"), *_listed(row.get("images"))]
    for turn in _listed(row.get("messages")):
        for part in _listed(turn.get("content")) if isinstance(turn, Mapping) else []:
            listed += part.values() if isinstance(part, Mapping) else []
    return any(_is_picture(image) for image in listed)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _is_picture(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("bytes") is not None or _is_picture(value.get("url"))
    if isinstance(value, str):
        return value.startswith("data:") or _is_base64(value)
    return isinstance(value, bytes)


def path_of(given: Any, keep: Keep) -> str:
    """The path of one image as a row gives it: a path, bytes, {bytes, path}, {url}, a data URL or
    plain base64.

    Raises RowFault for a web address and for what is no image at all.
    """
    if isinstance(given, Mapping):
        content = given.get("bytes")
        given = content if content is not None else given.get("path") or given.get("url")
    if isinstance(given, bytes | bytearray | memoryview):
        return keep(bytes(given))
    if not isinstance(given, str) or not given:
        raise RowFault("image is neither a path nor a list of paths")
    if given.startswith("data:"):
        return keep(_data_url(given))
    if given.startswith(("http://", "https://")):
        raise RowFault("image is a web address; download it first", given)
    if _is_base64(given):
        return keep(_base64(given))
    return given.removeprefix("file://")


def _data_url(url: str) -> bytes:
    head, _, body = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise binascii.Error
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise RowFault(f"image is no base64 data URL ({url[:30]})") from None


def _is_base64(text: str) -> bool:
    """Whether a text begins as a picture does in base64."""
    if len(text) < _LEAST_BASE64:
        return False
    try:
        head = base64.b64decode(text[:24], validate=True)
    except (binascii.Error, ValueError):
        return False
    return suffix_of(head[:16]) is not None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RowFault(f"the base64 of its image is damaged or cut ({text[:12]}...)") from None
