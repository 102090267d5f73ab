"""JSON arrays and JSON lines row by row, so that a file may be larger than memory."""

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from vtc.errors import InputError
from vtc.tables.text import decode_element, skip_space

_CHUNK = 1 << 20
# An error this far before the end of what is read is no matter of reading on.
_SURE = 1 << 16
_ONE_OBJECT = "one object over several lines? expected an array of rows, or a row a line"


def stream_json(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a JSON array of objects or of JSON lines, read as they are asked for.

    The file is closed at the end.

    Raises InputError naming the row (of an array, from 0) or the line of broken JSON, and the row
    that is no object.
    """
    for index, row in enumerate(stream_values(file, name)):
        if not isinstance(row, dict):
            found = str(row)[:40]
            raise InputError(f"{name}, row {index}: expected a JSON object, found {found}")
        yield row


def stream_values(file: BinaryIO, name: str) -> Iterator[Any]:
    """As `stream_json`, but the elements or lines may be any JSON."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
    with text:
        try:
            yield from _rows(text, name)
        except UnicodeDecodeError:
            raise InputError(f"{name} is neither Parquet nor UTF-8 text") from None


def _rows(text: io.TextIOBase, name: str) -> Iterator[Any]:
    buffer = text.read(_CHUNK)
    while buffer and not buffer.strip():
        buffer = text.read(_CHUNK)
    if not buffer.lstrip().startswith(("[", "{")):
        raise InputError(f"{name} is neither JSON, JSON lines nor Parquet")
    one_array = buffer.lstrip().startswith("[") and not _is_line(buffer)
    return (_array if one_array else _lines)(text, buffer, name)


def _is_line(buffer: str) -> bool:
    """Whether the first line is a whole JSON list with more behind it: JSON lines, no array."""
    line, _, behind = buffer.lstrip().partition("\n")
    if not (line.rstrip().endswith("]") and behind.strip()):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _array(text: io.TextIOBase, buffer: str, name: str) -> Iterator[Any]:
    rest = _Rest(text, buffer)
    rest.skip(1)
    index = 0
    while rest.peek() != "]":
        yield rest.element(f"{name}, row {index}")
        if rest.peek() == ",":
            rest.skip(1)
        elif rest.peek() != "]":
            raise InputError(f"{name}, row {index}: broken JSON (no ',' or ']' after it)")
        index += 1
    rest.skip(1)
    if rest.peek():
        raise InputError(f"{name}: broken JSON (more text after the closing ']')")


class _Rest:
    """What is left of a text: a buffer that reads on when it must."""

    def __init__(self, text: io.TextIOBase, buffer: str):
        self.text = text
        self.buffer = buffer
        self.at = skip_space(buffer, 0)
        self.decoder = json.JSONDecoder()

    def skip(self, count: int) -> None:
        """Step over characters already seen."""
        self.at += count

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
        self.at = skip_space(self.buffer, self.at)
        while self.at >= len(self.buffer) and self._more():
            self.at = skip_space(self.buffer, self.at)
        return self.buffer[self.at : self.at + 1]

    def element(self, where: str) -> Any:
        """The next value; raises InputError naming `where` if it is broken."""
        self.peek()
        while True:
            try:
                row, self.at = decode_element(self.decoder, self.buffer, self.at, where)
            except InputError:
                # A value that the end of the buffer cuts through looks broken too.
                if not self._is_cut() or not self._more():
                    raise
            else:
                return row

    def _is_cut(self) -> bool:
        """Whether the value here may be whole when more is read."""
        try:
            self.decoder.raw_decode(self.buffer, self.at)
        except json.JSONDecodeError as error:
            return error.msg.startswith("Unterminated") or error.pos + _SURE > len(self.buffer)
        except RecursionError:
            pass
        return False

    def _more(self) -> bool:
        left = self.buffer[self.at :]
        # Twice as much each time, so that a huge row is not decoded over and over.
        read = self.text.read(max(_CHUNK, len(left)))
        self.buffer, self.at = left + read, 0
        return bool(read)


def _lines(text: io.TextIOBase, buffer: str, name: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for index, line in enumerate(_split(text, buffer), start=1):
        stripped = line.strip()
        if stripped:
            try:
                row, end = decode_element(decoder, stripped, 0, f"{name}, line {index}")
            except InputError as error:
                if stripped != "{":
                    raise
                raise InputError(f"{error}; {_ONE_OBJECT}") from None
            if end != len(stripped):
                raise InputError(f"{name}, line {index}: broken JSON (more text after the object)")
            yield row


def _split(text: io.TextIOBase, buffer: str) -> Iterator[str]:
    while True:
        *whole, left = buffer.split("\n")
        yield from whole
        read = text.read(_CHUNK)
        if not read:
            yield left
            return
        buffer = left + read
