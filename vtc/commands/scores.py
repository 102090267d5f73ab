"""How scored answers become the rows that `vtc score` and `vtc eval` write."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtc.errors import InputError


class Scoring(NamedTuple):
    """What the options of scoring ask for: benchmarks as a whole, averages, or categories."""

    compat: bool
    incomplete: bool
    by: str | None
    average: bool
    sets: Sequence[str]

    def check(self) -> None:
        """Raise InputError for averages of categories."""
        if self.by and (self.average or self.sets):
            raise InputError("--by gives a row a category, --average a row a set; give one of them")

    def check_items(self, chosen: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Raise InputError, before anything is evaluated, if no item has a category."""
        from vtc.evaluate.categories import without

        if self.by and not any(item.category for _, items in chosen for item in items):
            raise without(benchmark.name for benchmark, _ in chosen)

    @property
    def table(self) -> Any:
        """The table that the rows are of."""
        from vtc.tables import specs

        return specs.CATEGORIES if self.by else specs.SCORES

    def rows(self, scored: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of `table` from scored predictions."""
        from vtc import console
        from vtc.evaluate.aggregate import aggregate
        from vtc.evaluate.average import averaged
        from vtc.evaluate.categories import by_category
        from vtc.evaluate.lean import lean
        from vtc.evaluate.uneven import uneven

        if self.by:
            return by_category(scored, self.compat, self.incomplete, console.say)
        found = aggregate(lean(scored, self.compat), self.compat, self.incomplete)
        for sentence in uneven(found):
            console.say(sentence)
        return averaged(found, self.average, self.sets, self.incomplete)

    def of_files(self, files: Iterable[str | Path], source: Any) -> list[dict[str, Any]]:
        """Rows of `table` from files of predictions; `source` as `read_predictions` takes it."""
        from vtc.evaluate.aggregate import score_item
        from vtc.evaluate.predictions import read_predictions

        items = (item for file in files for item in read_predictions(file, source))
        return self.rows(score_item(item, self.compat) for item in items)

    def columns(self, rows: Sequence[Mapping[str, Any]], *more: str) -> list[str]:
        """The columns that a person sees of rows; `more` stand behind the run's name."""
        names = ["run_id", *more, "n_params", "visual_tokens", "benchmark"]
        if any(row.get("compressor_settings") for row in rows):
            names[1:1] = ["compressor_settings"]
        if any(row.get("visual_tokens_repeated") for row in rows):
            names.insert(names.index("visual_tokens") + 1, "visual_tokens_repeated")
        if any(row.get("visual_tokens_mean") for row in rows):
            names.insert(names.index("visual_tokens") + 1, "visual_tokens_mean")
        if not self.by:
            return [*names, "score", "stderr", "chance", "n_items"]
        points = ["points"] if any(row["points"] is not None for row in rows) else []
        return [*names, "category", "score", "stderr", *points, "n_items"]
