"""Answers for reading: on the screen, and as a contact sheet."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vtc.errors import InputError


def show(
    found: Any, name: str, n: int | None, wrong: bool, sheet: str | None,
    images: str | None, force: bool,
) -> None:  # fmt: skip
    """Print the chosen predictions of an artifact, and draw them too if `sheet` names a file.

    Raises InputError for a table that holds no predictions, and a sheet without a single picture.
    """
    import click

    from vtc import console
    from vtc.evaluate import looking

    chosen = looking.choose(found.rows, name, n or 12, wrong)
    if sheet:
        _draw(chosen, sheet, list(_roots(found.footer, images)), force)
        console.say(f"wrote {sheet} ({len(chosen)} answers)")
    for number, row in enumerate(chosen, start=1):
        click.echo(looking.block(row, number, len(chosen)) + "\n")


def _roots(footer: Mapping[str, Any], images: str | None) -> Iterator[Path]:
    """Where pictures may be: as given, else where they were when the table was made."""
    if images is not None:
        if not Path(images).is_dir():
            raise InputError(f"--images {images} is no folder")
        yield Path(images)
        return
    known = footer.get("settings", {}).get("images", {})
    for root in dict.fromkeys(known.values() if isinstance(known, dict) else ()):
        if Path(root).is_dir():
            yield Path(root)


def _draw(rows: list[Any], out: str, roots: list[Path], force: bool) -> None:
    from vtc.evaluate import looking
    from vtc.figures.panel import file_format
    from vtc.tables.atomic import refuse_existing

    file_format(out)
    refuse_existing(out, force)

    from vtc import console
    from vtc.figures import fonts, sheet, style

    if len(rows) > sheet.MOST:
        raise InputError(f"--sheet takes at most {sheet.MOST} answers, not {len(rows)}; give -n")
    cells = []
    for row in rows:
        pictures, note = _pictures(row, roots)
        cells.append(
            sheet.Cell(
                pictures=pictures,
                note=note,
                title=_title(row),
                question=looking.asked(row),
                answer=looking.plain(row["prediction"]) or "(empty)",
                truth=looking.truth([looking.plain(text) for text in row["references"]]),
                right=not looking.is_wrong(row),
            )
        )
    if not any(cell.pictures for cell in cells) and any(cell.note != _TEXT for cell in cells):
        where = ", ".join(map(str, roots)) or "the folders of the evaluation"
        raise InputError(
            f"not one picture is found in {where}; give --images ROOT (eval --save-images keeps "
            "those of named benchmarks)"
        )
    found = fonts.fonts_for(text for cell in cells for text in cell.texts)
    with warnings.catch_warnings():
        # Letters that no font has are drawn as boxes, and said below.
        warnings.filterwarnings("ignore", message="Glyph")
        style.save(sheet.draw(cells, found.families), out, force)
    if found.missing:
        console.say(fonts.boxes(found.missing))


_TEXT = "text alone"


def _title(row: Mapping[str, Any]) -> str:
    tokens = f"V={row['visual_tokens']}, " if row.get("visual_tokens") else ""
    return f"{tokens}{row['benchmark']} {row['item_id']}"


def _pictures(row: Mapping[str, Any], roots: list[Path]) -> tuple[list[Any], str]:
    """The pictures of an answer; without one, why."""
    from vtc.data.images import ImageFault, open_image

    name = row.get("image_id")
    if not name or name == row["item_id"]:
        return [], _TEXT
    # Several images of an item are named one behind the other; a name may hold spaces itself.
    for names in ([name], name.split(" ")):
        for root in roots:
            try:
                return [open_image(root, one) for one in names], ""
            except ImageFault as error:
                fault = error.reason
    return [], f"{name}: {fault if roots else 'no image root'}"
