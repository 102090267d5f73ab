"""Loss curves from training logs."""

import json
import math

import pytest

from vtc import cli
from vtc.errors import InputError
from vtc.figures.train import draw, loss_label, read_logs
from vtc.tables import specs
from vtc.tables.write import write_rows


def log(folder, n=120):
    """A log of `n` rows in a run folder; its loss falls."""
    folder.mkdir(parents=True)
    rows = [
        {
            "step": step, "epoch": step / n, "loss": 2 + 3 / step, "learning_rate": 1e-3 / step,
            "grad_norm": None if step == 1 else 1 + math.sin(step), "samples_seen": 8 * step,
            "supervised_tokens": 40 * step, "seconds": float(step),
        }
        for step in range(1, n + 1)
    ]  # fmt: skip
    write_rows(rows, specs.TRAIN_LOG, folder / "train_log.parquet")
    return folder


def test_a_curve_a_run_named_apart(tmp_path):
    places = [log(tmp_path / one / "run-v4", n) for one, n in (("a", 120), ("b", 2))]
    logs = read_logs([*map(str, places), str(places[0])])
    assert list(logs) == ["a/run-v4", "b/run-v4"]
    loss, norm, rate = draw(logs).axes
    smooth = [line for line in loss.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in smooth] == ["a/run-v4", "b/run-v4"]
    assert smooth[0].get_xdata()[-1] == 8 * 120
    # Smoothed: between the last value and the first, and the short one as it is.
    assert 2 + 3 / 120 < smooth[0].get_ydata()[-1] < 2 + 3 / 12
    assert list(smooth[1].get_ydata()) == [5.0, 3.5]
    assert len(norm.lines[0].get_xdata()) == 119
    assert rate.lines[0].get_ydata()[0] == 1e-3


def test_the_loss_is_called_what_the_objective_makes_it(tmp_path):
    def told(name, settings):
        place = log(tmp_path / name, 3)
        rows = read_logs([str(place)])[name]
        about = {"settings": settings} if settings else None
        write_rows(
            list(rows), specs.TRAIN_LOG, place / "train_log.parquet", footer=about, force=True
        )
        return str(place)

    aligned, plain = told("a", {"objective": "align"}), told("l", {"objective": "lm"})
    checkpoint = told("c", None)
    manifest = {"identity": {"settings": {"objective": "align"}}}
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    assert loss_label([aligned]).startswith("loss (distance to the words' embeddings")
    assert loss_label([checkpoint]) == loss_label([aligned, checkpoint]) == loss_label([aligned])
    assert loss_label([plain]) == "loss (nats a token)" == loss_label([told("old", None)])
    assert loss_label([plain, aligned]) == "loss"
    axes = draw(read_logs([aligned]), loss_label([aligned])).axes
    assert axes[0].get_ylabel() == loss_label([aligned])


def test_places_without_a_log_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no train_log.parquet; give the folder of"):
        read_logs([str(tmp_path / "empty")])
    with pytest.raises(InputError, match=r"train_log.parquet has no rows"):
        read_logs([str(log(tmp_path / "none", 0))])


def test_the_command_writes_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        cli.run(["plot", "train", "run", "-o", "loss.svg"])
    assert end.value.code == 0
    assert (tmp_path / "loss.svg").read_text().startswith("<?xml")
    assert capsys.readouterr().err == "wrote loss.svg (1 run)\n"
