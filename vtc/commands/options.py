"""Flags that several commands share, and how rows leave a command."""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vtc.commands.inputs import keeping_inputs
from vtc.errors import InputError
from vtc.tables.spec import Table

FORMATS = ("table", "json", "csv", "parquet")


def output(function: Callable) -> Callable:
    """Add `-o`, `--format` and `--force`: where rows go, as what, and whether to overwrite.

    An output that is also an input is refused, whatever `--force` says.
    """
    function = keeping_inputs(function)
    for option in (
        click.option("--force", is_flag=True, help="Overwrite an output that exists."),
        click.option(
            "--format",
            "fmt",
            type=click.Choice(FORMATS),
            help="Format of the rows. [default: by the suffix of -o, else table]",
        ),
        click.option("-o", "--out", default="-", help="Output file. [default: -, stdout]"),
    ):
        function = option(function)
    return function


def config(function: Callable) -> Callable:
    """Add `--config FILE.toml`: settings named as the flags; the command line wins over them.

    A recipe holds a table for each of several commands; a command takes its own.
    """
    return click.option(
        "--config",
        type=click.Path(dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="TOML file of settings, named as the flags; flags win over it.",
    )(function)


def seed(function: Callable) -> Callable:
    """Add `--seed`."""
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Seed of all randomness.",
    )(function)


def seeds(function: Callable) -> Callable:
    """Add `--seed` that takes several."""
    return click.option(
        "--seed",
        type=Numbers(0, 2**32 - 1),
        default="0",
        show_default=True,
        help="Seed of all randomness, one or several: 0,1 trains one run each.",
    )(function)


def chat_template(function: Callable) -> Callable:
    """Add `--chat-template`, for LLMs that bring none."""
    return click.option(
        "--chat-template",
        help="Chat template: vicuna, chatml, zephyr, llama2 or a Jinja file. [default: the LLM's]",
    )(function)


def image_mode(default: str) -> Callable[[Callable], Callable]:
    """Add `--image-mode`: how a picture becomes a square; `default` is what happens without it."""
    return click.option(
        "--image-mode",
        type=click.Choice(["pad", "crop", "square"]),
        help="Pictures are padded to a square (LLaVA's pad), cropped (CLIP's way) or stretched. "
        f"[default: {default}]",
    )


def scoring(function: Callable) -> Callable:
    """Add how predictions become scores: `--compat`, `--incomplete`, `--by`, `--average` ..."""
    for option in (
        click.option(
            "--by",
            type=click.Choice(["category"]),
            help="Scores are those of each category: MME's 14, MMMU's subjects, ... (docs/"
            "benchmarks.md).",
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            help="With --average, a set in place of the paper's two: NAME=BENCHMARK,BENCHMARK,...",
        ),
        click.option(
            "--average",
            is_flag=True,
            help="Scores are the means over sets of benchmarks: reasoning (nine) and ocr (two).",
        ),
        click.option(
            "--incomplete",
            is_flag=True,
            help="Take pairs, circles and sets of which some are missing.",
        ),
        click.option(
            "--compat",
            type=click.Choice(["lmms-eval"]),
            help="Score as lmms-eval 0.7 does, also where it is wrong (docs/benchmarks.md).",
        ),
    ):
        function = option(function)
    return function


def text_tokens(meaning: str) -> Callable[[Callable], Callable]:
    """Add `--q`, the text tokens Q of an inference, with what it means to the command."""
    return click.option(
        "--q",
        "text_tokens",
        type=Quantity(zero=True),
        default="50",
        show_default=True,
        help=meaning,
    )


def emit(
    rows: Sequence[dict[str, Any]],
    spec: Table,
    out: str,
    fmt: str | None,
    force: bool,
    *,
    footer: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Send rows to stdout or a file in the wanted format; `columns` are those a person sees."""
    from vtc import console
    from vtc.tables import write

    chosen = write.check_output(out, fmt, force)
    if out != "-":
        write.write_rows(rows, spec, out, fmt=chosen, force=force, footer=footer)
        console.say(f"wrote {out} ({len(rows)} row{'s' * (len(rows) != 1)})")
    elif chosen == "table":
        console.print_table(rows, columns or spec.column_names)
    else:
        write.write_stdout(rows, spec, chosen, footer)


class Finite(click.FloatRange):
    """A number in a range; click's own lets nan pass every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse `value`; raises click.BadParameter outside the range and for nan."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"'{value}' is not a finite number", param, ctx)
        return number


class Numbers(click.ParamType):
    """A comma-separated list of whole numbers, such as 1,4,16."""

    name = "LIST"

    def __init__(self, least: int = 1, most: int | None = None) -> None:
        self.least = least
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse `value`; raises click.BadParameter if it is no list of numbers in range."""
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        try:
            numbers = tuple(int(str(part).strip()) for part in parts)
        except ValueError:
            self.fail(f"'{value}' is not a list of whole numbers such as 1,4,16", param, ctx)
        if not numbers or min(numbers) < self.least:
            self.fail(f"'{value}': every number must be at least {self.least}", param, ctx)
        if self.most is not None and max(numbers) > self.most:
            self.fail(f"'{value}': every number must be at most {self.most}", param, ctx)
        if len(set(numbers)) != len(numbers):
            self.fail(f"'{value}' names a number twice", param, ctx)
        return numbers


class Turns(Numbers):
    """The V of an elastic training: a list of numbers, which comes back ascending, or a word."""

    name = "LIST|published"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse `value`; raises click.BadParameter as `Numbers`."""
        if value == "published":
            return value
        return tuple(sorted(super().convert(value, param, ctx)))


class Names(click.ParamType):
    """A comma-separated list of names, such as avgpool,tokenpacker."""

    name = "LIST"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Parse `value`; raises click.BadParameter if a name is empty or there twice."""
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        names = tuple(str(part).strip() for part in parts)
        if not names or not all(names):
            self.fail(f"'{value}' is not a list of names such as a,b", param, ctx)
        if len(set(names)) != len(names):
            self.fail(f"'{value}' names one twice", param, ctx)
        return names


class Setting(click.ParamType):
    """A setting and its value, such as layers=2, query=area or trained=[1,4]; values as in TOML."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Parse `value`; what is no TOML value is a text. Raises click.BadParameter without `=`."""
        if isinstance(value, tuple):
            return value
        key, equals, raw = str(value).partition("=")
        if not (equals and key.strip() and raw.strip()):
            self.fail(f"'{value}' is no KEY=VALUE such as layers=2", param, ctx)
        try:
            return key.strip(), tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            return key.strip(), raw.strip()


class Quantity(click.ParamType):
    """A positive number as people write it: 3e12, 3T, 3TFLOP, 7b, 0.5b; 0 only if `zero`."""

    name = "NUMBER"

    def __init__(self, zero: bool = False) -> None:
        self.zero = zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse `value`; raises click.BadParameter if it is no positive number."""
        from vtc.tables.quantity import parse_quantity

        try:
            quantity = parse_quantity(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if quantity < 0 or (quantity == 0 and not self.zero):
            self.fail(f"'{value}' must be {'at least' if self.zero else 'above'} zero", param, ctx)
        return quantity


class Several(click.ParamType):
    """A comma-separated list of what a type reads, such as 0,50 or 1G,10T; so many, if `count`."""

    name = "LIST"

    def __init__(self, one: click.ParamType, count: int | None = None) -> None:
        self.one = one
        self.count = count

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse `value`; raises click.BadParameter as the type, and for a number there twice."""
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        numbers = tuple(self.one.convert(part, param, ctx) for part in parts)
        if self.count is not None and len(numbers) != self.count:
            self.fail(f"'{value}': give {self.count} numbers with a comma between", param, ctx)
        if len(set(numbers)) != len(numbers):
            self.fail(f"'{value}' names a number twice", param, ctx)
        return numbers


class Duration(click.ParamType):
    """A time such as 30ms or 0.5s; a bare number counts milliseconds. The value is in seconds."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse `value` into seconds; raises click.BadParameter if it is no positive time."""
        found = re.fullmatch(r"([0-9.]+(?:e[+-]?\d+)?)\s*(us|ms|s|)", str(value).strip())
        try:
            amount = float(found[1]) if found else 0.0
        except ValueError:
            amount = 0.0
        if not (found and 0 < amount < math.inf):
            self.fail(f"'{value}' is no time such as 30ms or 0.5s", param, ctx)
        return amount * {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1.0}[found[2]]


_LEAST_BARE_BYTES = 1_000_000


class Bytes(click.ParamType):
    """An amount of memory, such as 20GB or 500MB (powers of ten), or 24GiB (powers of two).

    A bare number counts bytes, as a saved configuration has them; a small one is taken for a unit
    that was forgotten.
    """

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse `value` into bytes; raises click.BadParameter if it is no positive amount."""
        text = str(value).strip()
        found = re.fullmatch(r"([0-9.]+(?:e\d+)?)\s*([kMGT]?)(i?)(B?)", text)
        try:
            thousands = " kMGT".index(found[2] or " ") if found else 0
            amount = float(found[1]) * (1024 if found[3] else 1000) ** thousands if found else 0
        except (ValueError, OverflowError):
            amount = 0
        if found and not (found[2] or found[4]) and 0 < amount < _LEAST_BARE_BYTES:
            self.fail(f"'{value}' has no unit; write {text}GB", param, ctx)
        if amount == math.inf:
            self.fail(f"'{value}' is too large", param, ctx)
        if not amount >= 1:
            self.fail(f"'{value}' is no amount of memory such as 20GB", param, ctx)
        return int(amount)


def _load_config(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Fill click's default_map from a TOML file; a key that is no flag is refused by name."""
    if value is None:
        return
    try:
        settings = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config {value} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {value} is not valid TOML: {error}") from None
    settings = _of_command(settings, ctx.command.name or "", value)
    settings = {key.replace("-", "_"): setting for key, setting in settings.items()}
    known = {
        flag_key(option): option.name
        for option in ctx.command.params
        if isinstance(option, click.Option) and option.name and option is not param
    }
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"--config {value}: '{unknown[0]}' is no option of {ctx.command.name}")
    ctx.meta["vtc.config"] = value
    ctx.default_map = {
        **(ctx.default_map or {}),
        **{known[key]: setting for key, setting in settings.items()},
    }


def _of_command(settings: dict[str, Any], command: str, file: str) -> dict[str, Any]:
    """The settings of one command: of a recipe with a table a command, its table; else all."""
    if not any(isinstance(setting, dict) for setting in settings.values()):
        return settings
    # Of a recipe, the jobs are a list of tables.
    stray = [key for key in settings if key != "job" and not isinstance(settings[key], dict)]
    if stray:
        raise InputError(f"--config {file}: has tables; put '{stray[0]}' into that of its command")
    own = settings.get(command)
    if not isinstance(own, dict):
        raise InputError(f"--config {file}: has tables, but no [{command}]")
    return own


def flag_key(param: click.Option) -> str:
    """The long flag of an option without its dashes: the key it has in a TOML file."""
    longest = max(param.opts, key=len)
    return longest.lstrip("-").replace("-", "_")
