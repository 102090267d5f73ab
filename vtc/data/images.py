"""Opening images: RGB, from inside their root only, whole files only, of bounded size."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vtc.errors import InputError

MAX_PIXELS = 178_956_970
"""Largest image opened, in pixels: twice Pillow's own warning level, where Pillow itself stops."""


class ImageFault(InputError):
    """An image that is missing, damaged, too large or outside its root; `image` is its path."""

    def __init__(self, message: str, image: str, reason: str):
        super().__init__(message)
        self.image = image
        self.reason = reason


def image_path(root: str | Path, relative: str) -> Path:
    """The file of an image; raises ImageFault if it would stand outside `root`.

    Symbolic links are followed before the check.
    """
    if "\0" in relative:
        raise _fault(root, relative, "holds a NUL character")
    base = _real(os.path.abspath(root))
    full = os.path.realpath(os.path.join(base, relative))
    if os.path.commonpath([base, full]) != base:
        raise _fault(root, relative, "leaves the image root")
    return Path(full)


@lru_cache(maxsize=64)
def _real(root: str) -> str:
    return os.path.realpath(root)


def open_image(root: str | Path, relative: str) -> Image.Image:
    """Decode one image, RGB. Transparent images are laid on white, as a viewer shows them.

    Raises ImageFault (an InputError) naming the file: missing, outside the root, no image,
    truncated, or more than MAX_PIXELS.
    """
    with _opened(root, relative) as image:
        return _rgb(image)


def check_image(root: str | Path, relative: str) -> str | None:
    """Decode one image and throw it away; what there is to note about it.

    A JPEG is decoded at an eighth of its size, which reads all of its data. Raises ImageFault as
    `open_image` does.
    """
    with _opened(root, relative) as image:
        kind = image.format
        image.draft(None, (1, 1))
        image.load()
        return _named_otherwise(relative, kind)


@contextmanager
def _opened(root: str | Path, relative: str) -> Iterator[Image.Image]:
    """An image not decoded yet; whatever fails until the end is an ImageFault."""
    path = image_path(root, relative)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _fault(root, relative, f"has more than {MAX_PIXELS} pixels")
                yield image
    except FileNotFoundError:
        raise _fault(root, relative, "missing") from None
    except IsADirectoryError:
        raise _fault(root, relative, "is a folder") from None
    except Image.DecompressionBombError:
        raise _fault(root, relative, f"has more than {MAX_PIXELS} pixels") from None
    except Image.UnidentifiedImageError:
        raise _fault(root, relative, _what_else(path)) from None
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow raises all three from damaged files, by format.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _fault(root, relative, f"damaged or truncated ({first})") from None


def _named_otherwise(relative: str, kind: str | None) -> str | None:
    """The note on an image whose name says another type than its content."""
    # Pillow fills its list of suffixes when it has opened the first image.
    named = Image.registered_extensions().get(os.path.splitext(relative)[1].lower())
    # A phone's MPO is a JPEG with a second picture behind it.
    same = {named, kind} <= {"JPEG", "MPO"}
    return None if named is None or named == kind or same else f"image is a {kind}, named {named}"


def _what_else(path: Path) -> str:
    """What a file is that is no image."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "is empty"
    text = head.lstrip().lower()
    web = text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))
    return "is no image but a web page" if web else "is no image"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _fault(root: str | Path, relative: str, reason: str) -> ImageFault:
    return ImageFault(f"image {relative} (root {root}): {reason}", relative, reason)
