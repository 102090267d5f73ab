"""The numbers of visual tokens each compressor can make of a grid of patches. Light: no torch, so
that a V that cannot be is refused before anything is loaded."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vtc.compress import pruning
from vtc.errors import InputError

Grid = tuple[int, int]
"""Rows and columns of patches."""

Asked = Sequence[int] | Literal["published"]
"""The V of an elastic training: numbers, or those that the compressor's publication trains."""


def every_patch(grid: Grid) -> list[int]:
    """No compression: rows * columns is the only choice."""
    return [grid[0] * grid[1]]


def up_to_every_patch(grid: Grid) -> list[int]:
    """Any number of tokens, up to one a patch."""
    return list(range(1, grid[0] * grid[1] + 1))


def two_or_more(grid: Grid) -> list[int]:
    """Any number from 2 to one a patch."""
    return list(range(2, grid[0] * grid[1] + 1))


def square_choices(grid: Grid) -> list[int]:
    """The k * k whose k divides the side of a square grid; none for another grid."""
    rows, columns = grid
    if rows != columns:
        return []
    return [side * side for side in range(1, rows + 1) if rows % side == 0]


def any_square(grid: Grid) -> list[int]:
    """The k * k up to the side of a square grid, whether k divides it or not."""
    rows, columns = grid
    return [side * side for side in range(1, rows + 1)] if rows == columns else []


MOST_QUERIES = 256
"""The learned queries of MQT, a 16 x 16 grid of them."""


def nested_queries(grid: Grid) -> list[int]:
    """Any number of the first queries; there are 256, on a small grid the square below N."""
    return list(range(1, n_queries(grid) + 1))


def n_queries(grid: Grid) -> int:
    """The largest square number of queries up to 256 and to the number of patches."""
    return math.isqrt(min(MOST_QUERIES, grid[0] * grid[1])) ** 2


@dataclass(frozen=True)
class Known:
    """What is known of a compressor before its class is loaded, which takes torch.

    `where` is module:class; the others are what the class says: its `supported`, and its flags.
    `publishes_turns`: an elastic one, whose publication trains it at a set of V.
    `schedule` makes the schedule of one that drops tokens inside the LLM (`compress.pruning`), and
    `ranked_by_next` says which layer chooses what stays. `mlp_at_every_patch`: at one token a patch
    its tokens are those of `mlp`, in their order.
    """

    where: str
    supported: Callable[[Grid], list[int]]
    pools: bool = False
    elastic: bool = False
    publishes_turns: bool = False
    needs_query: bool = False
    fuses: bool = False
    needs_cls: bool = False
    training_free: bool = False
    merges: bool = False
    schedule: Callable[..., pruning.Schedule] | None = None
    ranked_by_next: bool = False
    mlp_at_every_patch: bool = False

    @property
    def reads_more(self) -> bool:
        """Whether it needs more of the encoder than hidden states at patches, which caches hold."""
        return self.needs_cls or self.merges


KNOWN: dict[str, Known] = {
    "mlp": Known("vtc.compress.mlp:Mlp", every_patch, mlp_at_every_patch=True),
    "avgpool": Known("vtc.compress.avgpool:AvgPool", square_choices, pools=True, elastic=True),
    "tokenpacker": Known("vtc.compress.tokenpacker:TokenPacker", square_choices, elastic=True),
    "quecc": Known("vtc.compress.quecc:QueCC", square_choices, needs_query=True),
    "pixel-shuffle": Known("vtc.compress.pixelshuffle:PixelShuffle", square_choices),
    "mqt": Known("vtc.compress.mqt:Mqt", nested_queries, elastic=True, publishes_turns=True),
    "m3": Known("vtc.compress.m3:M3", square_choices, elastic=True, publishes_turns=True),
    "resampler": Known("vtc.compress.resampler:Resampler", up_to_every_patch),
    "qformer": Known("vtc.compress.qformer:QFormer", up_to_every_patch),
    "c-abstractor": Known("vtc.compress.cabstractor:CAbstractor", any_square, elastic=True),
    "llava-mini": Known("vtc.compress.llavamini:LlavaMini", any_square, fuses=True),
    "ldpv2": Known("vtc.compress.ldpv2:LdpV2", any_square, elastic=True),
    "blind": Known("vtc.compress.blind:Blind", up_to_every_patch),
    "visionzip": Known(
        "vtc.compress.visionzip:VisionZip", two_or_more, needs_cls=True, training_free=True
    ),
    "prumerge": Known(
        "vtc.compress.prumerge:PruMerge", up_to_every_patch, needs_cls=True, training_free=True
    ),
    "prumerge+": Known(
        "vtc.compress.prumerge:PruMergePlus", up_to_every_patch, needs_cls=True, training_free=True
    ),
    "divprune": Known(
        "vtc.compress.divprune:DivPrune",
        up_to_every_patch,
        training_free=True,
        mlp_at_every_patch=True,
    ),
    "tome": Known(
        "vtc.compress.tome:ToMe",
        up_to_every_patch,
        training_free=True,
        merges=True,
        mlp_at_every_patch=True,
    ),
    "fastv": Known(
        "vtc.compress.fastv:FastV",
        every_patch,
        training_free=True,
        schedule=pruning.fastv,
        mlp_at_every_patch=True,
    ),
    "pyramiddrop": Known(
        "vtc.compress.pyramiddrop:PyramidDrop",
        every_patch,
        training_free=True,
        schedule=pruning.pyramiddrop,
        ranked_by_next=True,
        mlp_at_every_patch=True,
    ),
}
"""The registry: a line a compressor."""

CHOICES = {name: known.supported for name, known in KNOWN.items()}
POOLING = tuple(name for name, known in KNOWN.items() if known.pools)


def training_free() -> list[str]:
    """The compressors that need no training: they work on the projector of any mlp run."""
    return [name for name, known in KNOWN.items() if known.training_free]


def check_training_free(name: str) -> None:
    """Raise InputError for a compressor that a finished run cannot be given."""
    check_name(name)
    if name not in training_free():
        raise InputError(
            f"--compressor {name}: a finished run can be given {', '.join(training_free())}, which "
            "need no training; others are trained with train-projector"
        )


def refuse_pruning(names: Iterable[str], what: str) -> None:
    """Raise InputError for a compressor that drops tokens inside the LLM; `what` says why."""
    for name in names:
        check_name(name)
        if KNOWN[name].schedule is not None:
            before = ", ".join(other for other in training_free() if KNOWN[other].schedule is None)
            raise InputError(
                f"{name} drops visual tokens between the layers of the LLM{what}; give it to a "
                f"finished mlp run with 'vtc eval --compressor {name}', or take one that works "
                f"before the LLM, such as {before}"
            )


def refuse_fusing(name: str, what: str) -> None:
    """Raise InputError for a compressor that fuses text with images, as `what` says it cannot."""
    if name in KNOWN and KNOWN[name].fuses:
        raise InputError(
            f"{name} fuses the text with the image before the LLM, {what}; 'vtc eval --dry-run' "
            "counts its FLOPs"
        )


def listed(numbers: Sequence[int]) -> str:
    """Ascending whole numbers as words: runs of three or more as "1 to 256"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(words)


def check_name(name: str) -> None:
    """Raise InputError, naming all compressors, for an unknown one."""
    if name not in KNOWN:
        raise InputError(f"no compressor is named '{name}'; choose from {', '.join(KNOWN)}")


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
        raise InputError(
            f"{name} cannot make {visual_tokens} visual tokens of a {rows}x{columns} grid; "
            f"choose from {listed(supported)}"
        )


def check_asked(names: Sequence[str], grid: Grid, asked: Iterable[int]) -> None:
    """Raise InputError for a V that one of the named compressors, or no compressor, can make."""
    for visual_tokens in asked:
        for name in names:
            if KNOWN[name].schedule is None:  # Else the LLM's layers say.
                check_visual_tokens(name, grid, visual_tokens, KNOWN[name].supported(grid))
        if not any(visual_tokens in known.supported(grid) for known in KNOWN.values()):
            rows, columns = grid
            raise InputError(
                f"no compressor makes {visual_tokens} visual tokens of a {rows}x{columns} grid; "
                f"at most {rows * columns}"
            )


def check_some(names: Sequence[str], grid: Grid) -> None:
    """Raise InputError for a compressor that makes no V at all of a grid."""
    for name in names:
        supported = KNOWN[name].supported(grid)
        if not supported:
            check_visual_tokens(name, grid, 1, supported)


def check_class_token(name: str, has_class_token: bool) -> None:
    """Raise InputError for a compressor that needs the class token of an encoder without one."""
    if KNOWN[name].needs_cls and not has_class_token:
        before = (other for other in training_free() if KNOWN[other].schedule is None)
        free = " or ".join(other for other in before if not KNOWN[other].needs_cls)
        raise InputError(
            f"{name} chooses patches by the attention of the encoder's class token, and this "
            f"encoder has none (SigLIP); use {free}, or an encoder such as CLIP"
        )


def check_mergeable(name: str, mergeable: bool) -> None:
    """Raise InputError for a compressor that merges patches in an encoder of another build."""
    if KNOWN[name].merges and not mergeable:
        raise InputError(
            f"{name} merges tokens inside CLIP's and SigLIP's encoders, and this encoder's layers "
            "are of another build; use another compressor"
        )


def check_cacheable(name: str) -> None:
    """Raise InputError for a compressor whose features no cache holds."""
    check_name(name)
    if KNOWN[name].reads_more:
        what = (
            "merges patches inside the encoder" if KNOWN[name].merges else "needs the class token"
        )
        raise InputError(
            f"{name} {what}, and a feature cache holds patches alone; use it without a cache: what "
            "fits in memory is still encoded once"
        )


def check_turns(name: str, grid: Grid | None, visual_tokens: int, asked: Asked | None) -> None:
    """Raise InputError for V at which a run of `visual_tokens` cannot be trained in turns.

    Without a grid numbers are compared with the run's V alone; None asks for nothing.
    """
    if asked is None:
        return
    if not KNOWN[name].elastic:
        elastic = ", ".join(other for other, known in KNOWN.items() if known.elastic)
        raise InputError(
            f"--train-visual-tokens: {name} is trained at one V; at several can be {elastic}"
        )
    if asked == "published" and not KNOWN[name].publishes_turns:
        sets = " and ".join(other for other, known in KNOWN.items() if known.publishes_turns)
        raise InputError(
            f"--train-visual-tokens published: {name} is published at one V a model; name the V, "
            f"such as 1,{visual_tokens} ({sets} have a published set)"
        )
    if isinstance(asked, str) or tuple(asked) == (visual_tokens,):
        return
    flag = f"--train-visual-tokens {','.join(map(str, asked))}"
    if 1 not in asked:
        raise InputError(f"{flag}: 1, the cheapest V, must be among them")
    if max(asked) > visual_tokens:
        raise InputError(
            f"{flag}: {max(asked)} is above the run's own V, {visual_tokens}; leave it out, or "
            f"train a run of --visual-tokens {max(asked)}"
        )
    if grid is not None:
        for number in asked:
            check_visual_tokens(name, grid, number, KNOWN[name].supported(grid))


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
