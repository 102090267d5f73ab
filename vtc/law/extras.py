"""What `vtc fit` writes beside its laws: profile curves, and the checklist."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.law.cells import place_of, point
from vtc.law.run import Fitted, Material, Request, compare_table
from vtc.tables import specs
from vtc.tables.atomic import refuse_existing, replacing
from vtc.tables.provenance import footer
from vtc.tables.write import check_output, write_rows


@dataclass(frozen=True)
class Extras:
    """Files beside the laws, None for none: the profile's table, and the checklist's name."""

    profile: str | None = None
    report: str | None = None
    force: bool = False

    def check(self, request: Request, out: str) -> None:
        """Raise InputError, before anything is fitted, for what cannot be written."""
        for flag, given in (("--profile", self.profile), ("--report", self.report)):
            if given is not None and request.form != "power":
                raise InputError(f"{flag} is for the power law; leave out --form {request.form}")
        if self.profile is not None:
            other = "--share" if request.share else "--exponents" if request.exponents else None
            other = "--method paper-grid" if request.method != "varpro" else other
            if other is not None:
                raise InputError(f"--profile refits all parameters; leave out {other}, or it")
            if self.profile == "-":
                raise InputError("--profile -: stdout has the laws; give the name of a file")
            check_output(self.profile, None, self.force)
        for path in self._pages():
            refuse_existing(path, self.force)
        named = [
            str(Path(p).resolve()) for p in (out, self.profile, *self._pages()) if p and p != "-"
        ]
        if len(set(named)) < len(named):
            raise InputError("-o, --profile and --report name the same file; give each its own")
        for table in request.inputs:
            if table != "-" and str(Path(table).resolve()) in named:
                raise InputError(f"{table} is fitted; give what is written beside it another name")

    def write(
        self,
        request: Request,
        material: Material,
        laws: Sequence[Fitted],
        lacking: Sequence[str] = (),
    ) -> list[str]:
        """Write them, whole or not at all, and say what was written.

        `lacking` says which tasks or groups have no law, and why.
        """
        made = footer(settings=request.settings(), inputs=list(request.inputs), seed=request.seed)
        if self.profile is not None:
            from vtc.law.profiles import profile_rows

            rows = [row for law in laws for row in profile_rows(law.points, law.row)]
            write_rows(rows, specs.PROFILE, self.profile, force=self.force, footer=made)
        if self.report is not None:
            self._write_report(request, material, laws, lacking, made)
        names = [name for name in (self.profile, *self._pages()) if name is not None]
        return [f"wrote {name}" for name in names]

    def _pages(self) -> tuple[str, ...]:
        if self.report is None:
            return ()
        stem = self.report
        for suffix in (".md", ".json"):
            stem = stem.removesuffix(suffix)
        if not Path(stem).name:
            raise InputError(f"--report {self.report}: give a name, as in --report law")
        return f"{stem}.md", f"{stem}.json"

    def _write_report(
        self,
        request: Request,
        material: Material,
        laws: Sequence[Fitted],
        lacking: Sequence[str],
        made: dict[str, Any],
    ) -> None:
        from vtc.law import checklist

        rows = [law.row for law in laws]
        forms = []
        if request.holdout is None and request.by is None and all(r["n_sizes"] > 1 for r in rows):
            plain = replace(request, form="all", method="varpro", exponents=None)
            forms, _ = compare_table(plain, material)
        table = [row for row in material.rows if row.get("task") in {None, *_tasks(rows)}]
        if request.holdout is not None:
            table = _fitted(table, laws, request)
        blocks = checklist.checklist(rows, table, forms, request.settings(), lacking)
        page, data = self._pages()
        text = json.dumps(checklist.document(blocks, rows, forms, made), indent=1, allow_nan=False)
        for path, content in ((page, checklist.markdown(blocks, rows, made)), (data, text + "\n")):
            with replacing(path) as partial:
                partial.write_text(content, encoding="utf-8")


def _fitted(
    table: Sequence[Mapping[str, Any]], laws: Sequence[Fitted], request: Request
) -> list[Mapping[str, Any]]:
    """The rows whose N and V are among the points fitted: those held out are not."""
    kept = {own[:2] for law in laws for own in law.points.points}
    return [
        row
        for index, row in enumerate(table)
        if point(row, place_of(row, request.source, index), request.convention)[:2] in kept
    ]


def _tasks(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {row["task"] for row in rows}
