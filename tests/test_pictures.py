"""Pictures cost no command its results, whatever Matplotlib's settings, and draw every name as it is."""

import json
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from purejaxdqn import load_config, search
from purejaxdqn.pictures import runs as pictures
from purejaxdqn.pictures.comparisons import draw_profile
from purejaxdqn.pictures.figures import save_figure
from purejaxdqn.pictures.sweeps import draw_sweep
from purejaxdqn.plot import main as plot
from purejaxdqn.runs.metrics import Metrics, read_metrics
from purejaxdqn.searches import runner as search_runner
from purejaxdqn.searches import study as studies
from purejaxdqn.searches.scores import Score
from purejaxdqn.searches.spec import SearchSpec
from purejaxdqn.searches.storage import open_study
from purejaxdqn.sweeps import runner as sweep_runner
from purejaxdqn.sweeps.directory import Times, save_piece
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, RunResult, summarise_points
from purejaxdqn.sweeps.spaces import Range
from purejaxdqn.sweeps.stages import PieceResult
from purejaxdqn.train import main as train
from tests.conftest import ROOT, TINY, mostly_slow

NAMES = [r"cost$5_x{$", "$x$", r"a\$b", "_hidden", "50%", "\udcff", "x\ny", "価格"]


def text_of(figure):
    """The texts of a figure as Matplotlib would draw them, and whether it takes them for formulas."""
    return [text._preprocess_math(text.get_text()) for text in figure.findobj(plt.Text) if text.get_text()]


@pytest.mark.parametrize("name", mostly_slow(NAMES, fast=NAMES[:1]), ids=repr)
def test_any_name_is_drawn_as_it_is(finished_run, tmp_path, name):
    metrics = read_metrics(finished_run / "metrics.csv")
    drawn = [
        pictures.draw_comparison([pictures.ComparedRun(name, metrics, name, 475.0)]),
        pictures.draw_report(metrics, title=name, solved_at=475.0),
        pictures.draw_learning_curve(metrics, title=name, solved_at=475.0),
    ]
    for figure, wanted in zip(drawn, ((name, f"{name} (IQM of 3 seeds, range)"), (name,), (name,)), strict=True):
        save_figure(figure, tmp_path / "x.png")
        texts = [(text.strip(), formula) for text, formula in text_of(figure)]
        assert {(one.replace("\udcff", "?"), False) for one in wanted} <= set(texts)


@pytest.mark.slow
def test_drawing_leaves_pyplot_and_its_backend_alone(finished_run, tmp_path):
    code = (
        "import pathlib, sys\n"
        "from purejaxdqn.pictures import figures, runs, searches, sweeps\n"
        "from purejaxdqn.runs.metrics import read_metrics\n"
        f"metrics = read_metrics(pathlib.Path({str(finished_run / 'metrics.csv')!r}))\n"
        f"path = pathlib.Path({str(tmp_path / 'x.png')!r})\n"
        "figures.save_figure(runs.draw_report(metrics, title='', solved_at=None), path)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=env)
    assert (tmp_path / "x.png").read_bytes()[1:4] == b"PNG"


def test_the_users_settings_of_matplotlib_change_no_picture(finished_run, tmp_path, quietly):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    before = (folder / "learning_curve.png").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "savefig.dpi": 7, "font.size": 50, "axes.facecolor": "red"}):
        assert quietly(plot, folder)[0] == 0
    assert (folder / "learning_curve.png").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("code", ["from purejaxdqn import load_config; load_config('cartpole')", "COMMAND"])
def test_a_backend_that_is_not_there_ends_nothing(finished_run, tmp_path, code):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "report.png").unlink()
    line = ["-m", "purejaxdqn.plot", str(folder)] if code == "COMMAND" else ["-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    if code == "COMMAND":
        (tmp_path / "matplotlibrc").write_bytes(b"\xff")
        env["MPLCONFIGDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, *line], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if code == "COMMAND":
        with Image.open(folder / "report.png") as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 100


@pytest.mark.slow
def test_the_users_backend_stays_chosen_where_it_is_there():
    code = "import purejaxdqn; purejaxdqn.load_config('cartpole'); import matplotlib; print(matplotlib.get_backend())"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "svg", done.stderr


@pytest.mark.slow
def test_a_run_whose_pictures_fail_ends_as_any_other_with_a_warning(quietly, barely_compiled, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("latex could not be found\nand more")

    monkeypatch.setattr("purejaxdqn.train._draw", fail)
    folder = tmp_path / "run"
    code, out, err = quietly(train, "--config", "cartpole_cleanrl", "--out", folder, "--quiet", *TINY)
    assert (code, out[-1]) == (0, str(folder))
    again = f"python -m purejaxdqn.plot {folder} tries again"
    assert err[-1] == f"warning: the pictures could not be drawn, {again}: latex could not be found"
    assert json.loads((folder / "summary.json").read_text())["total_timesteps"] == 600


@pytest.mark.parametrize(
    "scores",
    [[[1, 2], [3, np.inf]], [[np.inf, np.inf]] * 2, [[np.nan, np.nan]] * 2, [[1e38, 3e38], [-3e38, 1]]],
    ids=repr,
)
def test_the_profile_of_scores_that_are_not_finite_is_drawn(tmp_path, scores):
    points = [PointResult(k, f"{k}", np.array(one), 0.0, None, 0.0, 0, 0) for k, one in enumerate(scores)]
    save_figure(draw_profile({"Any": points}), tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_a_swept_key_never_leads_out_of_the_folder(tmp_path):
    """A stranger's ``sweep.yaml`` may have any text for a key."""
    key, config, nothing = "x/../../../name", load_config("cartpole_cleanrl", TINY), np.zeros(2)
    points = [Point(config, {key: value}) for value in (0.1, 0.2)]
    results = [RunResult(Run(k, 0), 1.0 * k, 0.0, None, False, nothing, nothing, nothing) for k in range(2)]
    folder = tmp_path / "a" / "b" / "c"
    (folder / "against_x").mkdir(parents=True)
    drawn = draw_sweep(folder, points, results, summarise_points(points, results))
    assert {path.parent for path in drawn} == {folder}
    assert all(path.is_file() for path in drawn)
    assert {path.name for path in tmp_path.rglob("*.png")} == {path.name for path in drawn}
    assert "against_x_.._.._.._name.png" in {path.name for path in drawn}


def fail(*_, **__):
    raise RuntimeError("latex could not be found")


def test_a_sweep_whose_pictures_fail_has_its_tables(tmp_path, capsys):
    (tmp_path / "pieces").mkdir()
    metrics = Metrics(*np.ones((len(Metrics._fields), 1, 3)))
    save_piece(tmp_path, PieceResult((Run(0, 0),), np.ones((1, 2)), np.zeros(1, bool), metrics), Times(0.0, 0.0))
    points = [Point(load_config("cartpole_cleanrl", TINY), {})]
    (result,) = sweep_runner._finish(points, tmp_path, fail, quiet=True)
    assert (result.iqm, (tmp_path / "points.csv").is_file()) == (1.0, True)
    assert capsys.readouterr().err == (
        "warning: the pictures could not be drawn, "
        f"python -m purejaxdqn.plot {tmp_path} tries again: latex could not be found\n"
    )


def test_a_search_whose_pictures_fail_says_what_it_has_found(tmp_path, capsys, monkeypatch):
    config = load_config("cartpole_cleanrl", TINY)
    study = open_study(str(tmp_path / "study.log"), "s", {})
    (trial,) = studies.ask(study, {"gamma": Range(0.9, 0.99)}, 1, worker="me")
    studies.tell(study, trial, Score(3.0, None))
    result = search_runner.SearchResult(study, studies.best_trial(study), {"iqm": None, "final_eval_return": [None]})
    monkeypatch.setattr(search_runner, "run_search", lambda *_, **__: result)
    monkeypatch.setattr("purejaxdqn.pictures.searches.draw_search", fail)
    spec = SearchSpec(*[None] * len(SearchSpec._fields))._replace(retest=5)
    assert search.search(spec, config, tmp_path, said=set()) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == ["trial 0 on 5 fresh seeds: greedy return not finite", str(tmp_path)]
    assert err.startswith("warning: the pictures could not be drawn, ")
