"""The numbers of visual tokens each compressor can make of a grid of patches. Light: no torch, so
that a V that cannot be is refused before anything is loaded."""

from collections.abc import Callable, Sequence

from vtc.errors import InputError

Grid = tuple[int, int]
"""Rows and columns of patches."""


def every_patch(grid: Grid) -> list[int]:
    """No compression: rows * columns is the only choice."""
    return [grid[0] * grid[1]]


def square_choices(grid: Grid) -> list[int]:
    """The k * k whose k divides the side of a square grid; none for another grid."""
    rows, columns = grid
    if rows != columns:
        return []
    return [side * side for side in range(1, rows + 1) if rows % side == 0]


CHOICES: dict[str, Callable[[Grid], list[int]]] = {
    "mlp": every_patch,
    "avgpool": square_choices,
    "tokenpacker": square_choices,
}
"""By the names of the registry: what the class's `supported` says."""

POOLING = ("avgpool",)
"""Those whose class `pools`: means of windows serve them as well as the patches themselves."""


def check_name(name: str) -> None:
    """Raise InputError, naming all compressors, for an unknown one."""
    if name not in CHOICES:
        raise InputError(f"no compressor is named '{name}'; choose from {', '.join(CHOICES)}")


def check_visual_tokens(
    name: str, grid: Grid, visual_tokens: int, supported: Sequence[int]
) -> None:
    """Raise InputError, naming the choices, if `visual_tokens` is not among `supported`."""
    rows, columns = grid
    if not supported:
        raise InputError(
            f"{name} needs a square grid of patches, this encoder's is {rows}x{columns}; "
            "use compressor mlp or a square image size"
        )
    if visual_tokens not in supported:
        choices = ", ".join(map(str, supported))
        raise InputError(
            f"{name} cannot make {visual_tokens} visual tokens of a {rows}x{columns} grid; "
            f"choose from {choices}"
        )


def check_pooling(grid: Grid | None, n_windows: int, compressors: Sequence[str]) -> None:
    """Raise InputError unless means of so many equal windows of a grid serve all `compressors`.

    Without a grid only the compressors are checked.
    """
    unfit = [name for name in compressors if name not in POOLING]
    if unfit or not compressors:
        what = f"{unfit[0]} needs every patch" if unfit else "name the --compressor it is for"
        serves = " and ".join(POOLING)
        raise InputError(f"--pool {n_windows}: {what}; pooled features serve {serves} alone")
    choices = square_choices(grid) if grid else [n_windows]
    if n_windows not in choices:
        raise InputError(
            f"--pool {n_windows}: the grid has windows for {', '.join(map(str, choices)) or 'none'}"
        )
