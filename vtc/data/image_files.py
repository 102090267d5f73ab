"""Which content an image file has, so that a changed image under an old name is noticed."""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtc.data.images import image_path
from vtc.errors import InputError

_END = 16 * 1024
"""Bytes read at either end of a file: a picture drawn or saved anew differs in these or in size."""


@dataclass(frozen=True)
class FileId:
    """Size in bytes, time of change in ns, and SHA-256 in hex of a file."""

    size: int
    mtime_ns: int
    sha256: str


def file_id(root: str | Path, relative: str) -> FileId:
    """The identity of one image file; raises ImageFault outside `root`, OSError if it is gone."""
    path = image_path(root, relative)
    facts = path.stat()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileId(facts.st_size, facts.st_mtime_ns, digest)


def list_hash(images: Sequence[str]) -> str:
    """SHA-256 in hex of a list of image paths, order included."""
    return hashlib.sha256("\0".join(images).encode()).hexdigest()


def content_hash(images: Iterable[tuple[Path, str]]) -> str:
    """SHA-256 in hex of what images (root, relative path) hold, whatever their order and root.

    Of each file its size and its first and last 16 KiB count, so that a large data set costs
    little; its time of change does not, so that a copy is the same. A file that is not there counts
    as such.
    """
    whole = hashlib.sha256()
    for root, relative in sorted(set(images), key=lambda image: image[1]):
        whole.update(f"{relative}\0".encode(errors="surrogateescape"))
        whole.update(_ends_digest(os.path.join(root, relative)))
    return whole.hexdigest()


def _ends_digest(path: str) -> bytes:
    """A hash of a file's size and ends, nothing where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return b""
        size = facts.st_size
        read = os.read(descriptor, 2 * _END if size <= 2 * _END else _END)
        if size > 2 * _END:
            read += os.pread(descriptor, _END, size - _END)
        return hashlib.sha256(b"%d:" % size + read).digest()
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def check_unchanged(
    source: object, root: str | Path, images: Iterable[str], known: Mapping[str, FileId]
) -> None:
    """Raise InputError, naming `source` and the image, if a file is no longer what it was.

    Same size and time of change count as the same content; with another time (a copied data set)
    the content decides. Images that are gone are no matter: their features are at hand.
    """
    for image in images:
        was = known[image]
        try:
            # No look at where links lead, which `file_id` takes: this runs over every image.
            facts = os.stat(os.path.join(root, image))
        except OSError:
            continue
        if (facts.st_size, facts.st_mtime_ns) == (was.size, was.mtime_ns):
            continue
        if facts.st_size != was.size or file_id(root, image).sha256 != was.sha256:
            raise InputError(
                f"{source}: image {image} has changed since it was encoded; encode again"
            )
