"""vtc plot: tables in, figures out; one subcommand a figure."""

import click

from vtc.commands.plot_choices import choices, regret, text
from vtc.commands.plot_laws import forms, groups, holdout, law, profile, ridge
from vtc.commands.plot_runs import same_compute, scores, train


class _InOrder(click.Group):
    """Figures in the order in which a study makes what they read."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


_FIGURES: tuple[click.Command, ...] = (
    *(train, scores, same_compute),
    *(law, holdout, profile, ridge, forms, groups),
    *(text, regret, choices),
)


@click.group(cls=_InOrder, commands={figure.name or "": figure for figure in _FIGURES})
def plot():
    """Draw a figure as PNG, SVG or PDF; docs/figures.md shows each.

    What each reads: `train` runs; `scores` and `same-compute` scores tables; `law`, `holdout`,
    `ridge` and `forms` scores or points; `profile` a table of `vtc fit --profile`; `groups`
    laws of `vtc fit --by`; `text`, `regret` and `map` a law file, or a shipped law by its name.

    \b
    Example:
      vtc plot train runs/tokenpacker-v1 runs/tokenpacker-v16 -o loss.png
      vtc plot scores scores.parquet -o scores.png
      vtc plot same-compute scores.parquet -o same.png
      vtc plot law scores.parquet --law law.parquet --q 0,50 -o law.png
      vtc plot holdout scores.parquet --holdout 'n_params>=7b' -o holdout.png
      vtc plot profile profile.parquet -o profile.png
      vtc plot ridge scores.parquet -o ridge.png
      vtc plot forms scores.parquet -o forms.png
      vtc plot groups laws.parquet -o benchmarks.png
      vtc plot text law.parquet -o text.png
      vtc plot regret law.parquet -o regret.png
      vtc plot map law.parquet -o map.png
    """
