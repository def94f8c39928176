"""The pages of sweeps and searches: tiles, the best point, captions, folded tables, films."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from purejaxdqn import load_config
from purejaxdqn.pictures import report_films, report_parts
from purejaxdqn.pictures.captions import caption_of
from purejaxdqn.report import main
from purejaxdqn.sweeps.directory import describe, hold_directory
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult, summarise_points, write_points, write_results
from tests.conftest import TINY
from tests.test_report import Page


def write_sweep(folder, settings):
    """A sweep's directory as it ends: four seeds of each point, whose scores rise with its number."""
    points = [
        Point(load_config("cartpole_cleanrl", [*TINY, *(f"{key}={value}" for key, value in one.items())]), one)
        for one in settings
    ]
    results = [
        RunResult(Run(k, seed), 10.0 * k + seed, 1.0, None, k == seed == 0, np.arange(2), np.ones(2), np.ones(2))
        for k in range(len(points))
        for seed in range(4)
    ]
    with hold_directory(folder, describe(points, 4)):
        write_results(folder, points, results)
        write_points(folder, points, summarise_points(points, results))
    numbers = {"points": len(points), "seeds": 4, "env_steps": 7200, "run_seconds": 300.0, "env_steps_per_second": 24}
    (folder / "summary.json").write_text(json.dumps(numbers))
    for name in ("curves.png", "against_gamma.png", "own picture.png"):
        Image.new("RGB", (40, 30), "white").save(folder / name)
    (folder / "curves.svg").write_text("<svg/>")
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "sweep", [{"gamma": 0.9}, {"gamma": 0.95}, {"gamma": 0.99}])


def report(folder, *options):
    assert main([str(folder), *options]) == 0
    text = (folder / "report.html").read_text()
    return text, Page(text)


def test_the_page_of_a_sweep_begins_with_tiles_and_the_best_point(sweep):
    text, page = report(sweep)
    for tile in (
        "<b>21.50</b><span>greedy return of the best point (IQM of 4 seeds, range 20.00 to 23.00)</span>",
        "<b>3</b><span>points</span>",
        "<b>4</b><span>seeds for each point</span>",
        "<b>7,200</b><span>environment steps of all runs</span>",
        "<b>5 min</b><span>run time</span>",
        "<b>24</b><span>steps per second</span>",
        "<b>1</b><span>runs that diverged</span>",
    ):
        assert tile in text, tile
    assert "Point 2 is the best of 3 points: 21.50 (IQM of 4 seeds, range 20.00 to 23.00)." in page.text
    assert ["gamma", "0.99"] in page.rows
    assert "<pre>gamma=0.99</pre>" in text
    assert text.index("The best point") < text.index("Pictures") < text.index("points.csv")


def test_pictures_have_sentences_below_them_and_come_once(sweep):
    _, page = report(sweep)
    assert len(page.pictures) == 3
    known = [one for one in page.pictures if one != "own picture.png"]
    assert len(known) == 2
    assert all(one.endswith(".") and one in page.text for one in known)
    assert "against gamma" in caption_of("against_gamma", "")


def test_every_picture_that_the_commands_draw_has_a_caption():
    ours = "learning_curve report comparison curves ranking heat_map against_gamma performance_profile slices history"
    ours += " probability_of_improvement parallel_coordinates scores radar importances"
    for stem in ours.split(" "):
        assert caption_of(stem, "name").endswith("."), stem
    assert caption_of("other", "other.png") == "other.png"


def test_only_wide_pictures_are_enlarged_on_small_screens(sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    Image.new("RGB", (1200, 300), "white").save(folder / "ranking.png")
    text, _ = report(folder)
    assert text.count('class="drawn wide"') == 1
    assert text.count('class="drawn"') == 3


def test_tables_are_folded_and_say_how_long_they_are(sweep):
    text, _ = report(sweep)
    assert "<summary>points.csv <span>3 rows</span></summary>" in text
    assert "<summary>runs.csv <span>12 rows</span></summary>" in text
    assert "<summary>sweep.yaml</summary>" in text
    assert "<details open" not in text


def test_each_environment_of_a_sweep_has_its_best_point(tmp_path):
    worlds = [{"env.id": env_id, "gamma": gamma} for env_id in ("CartPole-v1", "Acrobot-v1") for gamma in (0.9, 0.99)]
    text, page = report(write_sweep(tmp_path / "sweep", worlds))
    assert "Point 1 is the best in CartPole-v1: 11.5" in page.text
    assert "Point 3 is the best in Acrobot-v1: 31.5" in page.text
    assert "The best points" in page.text
    assert "greedy return of the best point in Acrobot-v1" in text


def test_a_sweep_that_is_not_finished_says_so(sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    (folder / "points.csv").unlink()
    assert "Not finished: no points.csv." in report(folder)[1].text


RETEST = {
    "trial": 7,
    "value": 123.456,
    "params": {"optimizer.learning_rate": 0.00123, "network.hidden": [64, 64]},
    "final_eval_return": [10.0, 20.0, 30.0],
    "iqm": 20.0,
}


@pytest.fixture
def search(tmp_path):
    folder = tmp_path / "a search"
    folder.mkdir()
    (folder / "search.json").write_text(json.dumps({"worker": "x", "definition": {"seeds": 3, "objective": "auc"}}))
    with (folder / "trials.csv").open("w", newline="") as file:
        states = ["complete"] * 5 + ["pruned"] * 2 + ["fail"]
        csv.writer(file).writerows([["trial", "state", "value"], *([k, state, k] for k, state in enumerate(states))])
    (folder / "best_retest.json").write_text(json.dumps(RETEST))
    (folder / "best.yaml").write_text("seed: 1\n")
    return folder


def test_the_page_of_a_search_begins_with_the_test_on_fresh_seeds(search):
    text, page = report(search)
    for tile in (
        "<b>20.00</b><span>greedy return on 3 fresh seeds (IQM, range 10.00 to 30.00)</span>",
        "<b>123.5</b><span>score of the best trial</span>",
        "<b>8</b><span>trials</span>",
        "<b>2</b><span>of them stopped early</span>",
        "<b>1</b><span>of them failed</span>",
    ):
        assert tile in text, tile
    sentence = (
        "Trial 7 is the best of 8: its score, the IQM over 3 seeds of the mean greedy return over the run, is 123.5."
    )
    assert sentence in page.text
    assert ["optimizer.learning_rate", "0.00123"] in page.rows
    assert ["network.hidden", "[64, 64]"] in page.rows
    assert f"python -m purejaxdqn.train --config '{search / 'best.yaml'}'" in page.text


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"value": None, "iqm": None, "final_eval_return": [None, 1.0], "params": 3, "trial": None},
        {"value": "x", "iqm": [1], "final_eval_return": "y"},
    ],
    ids=["unfinished", "not finite", "damaged"],
)
def test_a_search_without_a_sound_test_has_a_page_too(change, search):
    if change:
        (search / "best_retest.json").write_text(json.dumps({**RETEST, **change}))
        assert "not finite" in report(search)[1].text
    else:
        (search / "best_retest.json").unlink()
        assert "Not finished: no best_retest.json." in report(search)[1].text


def test_films_are_inside_unless_told_otherwise_and_up_to_a_size(sweep, tmp_path, monkeypatch):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    (folder / "run").mkdir()
    (folder / "run" / "summary.json").write_text("{}")
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    for path in (folder / "first.gif", folder / "run" / "second.gif"):
        frames[0].save(path, save_all=True, append_images=frames[1:])
    assert report(folder)[0].count("data:image/gif") == 2
    assert "An episode, from run/second.gif." in report(folder)[1].text
    assert report(folder, "--no-films")[0].count("data:image/gif") == 0
    size = (folder / "first.gif").stat().st_size
    monkeypatch.setattr(report_parts, "MAX_MEDIA", 2 * size - 1)
    text, page = report(folder)
    assert text.count("data:image/gif") == 1
    assert "second.gif is left out" in page.text


def test_a_finished_run_without_a_film_is_filmed_for_its_page(finished_run, tmp_path, quietly):
    run = shutil.copytree(finished_run, tmp_path / "run")
    before = sorted(path.name for path in run.iterdir())
    code, out, err = quietly(main, run)
    assert (code, out, [line for line in err if "warning" in line]) == (0, [str(run / "report.html")], [])
    text = (run / "report.html").read_text()
    summary = json.loads((run / "summary.json").read_text())
    best = int(np.argmax(summary["final_eval_return"]))
    assert f"A greedy episode of agent {best}: return " in text
    assert text.count("data:video/mp4") + text.count("data:image/gif") == 1
    assert sorted(path.name for path in run.iterdir()) == sorted(
        [*before, "report.html"]
    )  # the film is in the page only
    assert quietly(main, run, "--no-films")[0] == 0
    assert "greedy episode of agent" not in (run / "report.html").read_text()


def test_a_page_without_a_film_says_why(finished_run, tmp_path, monkeypatch):
    run = shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda **_: None)

    def fail(*_, **__):
        raise RuntimeError("the screen is broken\nand more")

    monkeypatch.setattr(report_films, "_film", fail)
    assert "There is no film: the screen is broken" in report(run)[1].text
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "# mine\n")
    assert "There is no film, because files have changed since the run ended." in report(run)[1].text
