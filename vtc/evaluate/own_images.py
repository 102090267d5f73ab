"""The images of a row of one's own benchmark: paths as they stand, pictures made into files."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from vtc.data.faults import RowFault
from vtc.data.pictures import Keep, path_of
from vtc.errors import InputError
from vtc.evaluate.benchmark import Benchmark, fill, is_template
from vtc.evaluate.benchmarks.rows import literal_list
from vtc.evaluate.own_rows import missing


class RowImages:
    """Gives the image paths of rows; `keep` takes the pictures that rows hold themselves.

    All images of a benchmark have one root, so it may hold its pictures or name files, not both.
    """

    def __init__(self, benchmark: Benchmark, keep: Keep):
        columns = benchmark.columns.image
        self.columns = (columns,) if isinstance(columns, str) else columns or ()
        self.suffix = benchmark.image_suffix
        self.kept = self.named = ""
        self._keep = keep

    def of(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        """The paths of a row's images, none where its cells are empty.

        Raises InputError naming row and column for a column that is not there, a cell that is no
        image, and a row that names files where others hold pictures.
        """
        found = [image for column in self.columns for image in self._column(row, column, where)]
        if self.kept and self.named:
            raise InputError(
                f"{self.kept} holds its picture itself, but {self.named} names a file; keep them "
                "in benchmarks apart"
            )
        return tuple(found)

    def _column(self, row: dict[str, Any], column: str, where: str) -> list[str]:
        if is_template(column):
            return [self._of_cell(fill(column, row, where), column, where)]
        if column not in row:
            raise missing(column, row, where)
        cell = row[column]
        written = literal_list(cell) if isinstance(cell, str) else None
        listed = cell if written is None else written
        cells = listed if isinstance(listed, list) else [listed]
        return [self._of_cell(one, column, where) for one in cells if not _is_empty(one)]

    def _of_cell(self, cell: Any, column: str, where: str) -> str:
        kept = False

        def keep(picture: bytes) -> str:
            nonlocal kept
            kept = True
            return self._keep(picture)

        try:
            # An id that is a number may be the name of a file, without its suffix.
            path = path_of(str(cell) if isinstance(cell, int | float) else cell, keep)
        except RowFault as fault:
            raise InputError(f"{where}, column '{column}': {fault.reason}") from None
        if kept:
            self.kept = self.kept or where
            return path
        self.named = self.named or where
        return path if self.suffix is None else str(PurePath(path).with_suffix(self.suffix))


def _is_empty(cell: Any) -> bool:
    """Whether a cell says that there is no image: nothing, an empty text, or {bytes, path} of
    neither.
    """
    if isinstance(cell, Mapping):
        return all(value is None for value in cell.values())
    return cell is None or cell == ""


def refuse(picture: bytes) -> str:
    """The Keep of those who read images by their paths alone."""
    raise RowFault("it holds its picture itself; vtc eval alone makes files of such")
