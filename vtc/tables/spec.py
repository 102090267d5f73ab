"""What a table is: named, versioned columns with units and meanings. Light: loads no pyarrow."""

from dataclasses import dataclass
from typing import Any, Literal

ColumnType = Literal[
    "string",
    "int",
    "float",
    "bool",
    "list<string>",
    "list<float>",
    "list<turn>",
    "list<region>",
]


@dataclass(frozen=True)
class Column:
    """One column: its type, unit and meaning, and whether a cell may be empty."""

    name: str
    type: ColumnType
    meaning: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A named, versioned table. `version` grows when a column changes its meaning."""

    name: str
    version: int
    meaning: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    def complete(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row in column order, missing nullable cells as None.

        Raises ValueError for an unknown column or an empty cell that may not be empty (a fault
        of the program, not of its user).
        """
        unknown = set(row) - set(self.column_names)
        if unknown:
            raise ValueError(f"table {self.name} has no column {sorted(unknown)}")
        for column in self.columns:
            if not column.nullable and row.get(column.name) is None:
                raise ValueError(f"table {self.name}: column {column.name} is empty in {row}")
        return {name: row.get(name) for name in self.column_names}
