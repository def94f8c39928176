"""The curves of the family: agents differ from DQN in what they name, table and pictures are right, pages show them."""

import csv
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from benchmarks import curves, harness, learning, pictures
from purejaxdqn.config.reading import read_config
from purejaxdqn.pictures.palette import COLORS, OTHERS_COLOR
from purejaxdqn.runs.metrics import COLUMNS

ALGORITHMS = harness.ROOT / "docs" / "algorithms"
CHANGED = {
    "double_dqn": {"bootstrap"},
    "munchausen": {"bootstrap"},
    "c51": {"distribution"},
    "hl_gauss": {"distribution"},
    "qr_dqn": {"distribution"},
    "iqn": {"distribution"},
    "fqf": {"distribution"},
    "dueling": {"network"},
    "noisy": {"network", "exploration"},
    "per": {"replay"},
    "n_step": {"n_step"},
    "rainbow": {"n_step", "distribution", "bootstrap", "network", "exploration", "replay"},
    "bootstrapped": {"ensemble", "exploration"},
    "bootstrapped_priors": {"ensemble", "exploration"},
}
"""The sections of the config in which an agent differs from plain DQN."""


def config_of(name):
    agent = curves.AGENTS[name]
    return read_config(curves.configs_of(agent), curves.overrides_of(agent, curves.STEPS, curves.SEEDS)).checked()


@pytest.mark.parametrize("name", CHANGED)
def test_an_agent_differs_from_plain_dqn_in_what_it_names(name):
    config, plain = config_of(name).model_dump(), config_of("dqn").model_dump()
    assert {key for key in config if config[key] != plain[key]} == CHANGED[name]
    assert (config["seed"], config["num_seeds"]) == (2028, 10)


def test_no_two_agents_are_the_same():
    configs = [config_of(name).model_dump_json() for name in curves.AGENTS]
    assert len(set(configs)) == len(configs) == len(CHANGED) + 1


def test_plain_dqn_has_nothing_that_a_preset_sets():
    plain = curves.Agent(("dqn",))
    names = read_config(curves.configs_of(plain), curves.overrides_of(plain, curves.STEPS, curves.SEEDS)).checked()
    assert config_of("dqn") == names


def test_no_search_has_used_the_seed():
    assert [name for name in curves.AGENTS if learning.find_overlap(curves.configs_of(curves.AGENTS[name]), 2028)] == []
    assert curves.SEED == 2028
    searched = {
        seed
        for path in (harness.ROOT / "configs").rglob("*.yaml")
        for seed in learning.searched_seeds(path.read_text(encoding="utf-8"))
    }
    assert not {curves.SEED, curves.SEED - 1} & searched  # a search tests its best point with its seed + 1


def test_every_preset_of_the_index_has_a_curve_on_the_page_that_the_index_names():
    rows = re.findall(r"^\| `(\w+)` \|.*\[.+\]\((.+)\.md\) \|$", (ALGORITHMS / "index.md").read_text(), re.MULTILINE)
    named = {page: {preset for preset, at in rows if at == page} for page in dict(rows).values() if "/" not in page}
    shown = {page: set(agents) - {"hl_gauss"} for page, agents in curves.PAGES.items()}  # it has no preset
    assert shown == named


@pytest.mark.parametrize("page", curves.PAGES)
def test_a_page_shows_its_picture_with_a_text_for_those_who_do_not_see_it(page):
    text = (ALGORITHMS / f"{page}.md").read_text(encoding="utf-8")
    picture = rf"^!\[([^\]]+)\]\(\.\./\.\./benchmarks/results/curves_{page}\.png\)$"
    (alternative,) = re.findall(picture, text, re.MULTILINE)
    assert all(name in alternative for name in ("plain DQN", *curves.PAGES[page]))
    assert "](../results/ablation.md#learning-curves-on-cartpole)" in text
    assert (harness.RESULTS / f"curves_{page}.png").is_file()


def test_the_results_have_every_agent_with_all_its_seeds():
    scores, points = learning.read("curves_scores"), learning.read("curves")
    assert list(dict.fromkeys(one["agent"] for one in points)) == list(curves.AGENTS)
    assert [one["agent"] for one in scores] == [name for name in curves.AGENTS for _ in range(curves.SEEDS)]
    steps = {name: [one["env_step"] for one in points if one["agent"] == name] for name in curves.AGENTS}
    assert all(steps[name] == steps["dqn"] for name in curves.AGENTS)
    assert {one["env_steps"] for one in scores} == {steps["dqn"][-1]} == {str(curves.STEPS)}


def test_the_lines_of_an_agent_are_those_of_its_run(tmp_path, monkeypatch):
    """Of eight seeds the best two and the worst two do not count for a point of the curve."""
    values = [0.0, 0.0, 2.0, 2.0, 4.0, 4.0, 9.0, 99.0]
    rows = [
        [{"seed_index": seed, "env_step": step, "eval_return": value + nth}.get(column, 0.0) for column in COLUMNS]
        for nth, step in enumerate((3, 6))
        for seed, value in enumerate(values)
    ]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    asked = []

    def train(configs, overrides, folder):
        asked.append((configs, overrides, folder))
        return {"total_timesteps": 6, "final_eval_return": [*range(8)]}

    monkeypatch.setattr(harness, "train", train)
    scores, points = curves.train("iqn", tmp_path, 100, 8)
    overrides = ["schedule.warmup=1_000", "reward.scale=0.1", "total_timesteps=100", "seed=2028", "num_seeds=8"]
    assert asked == [(("cartpole_cleanrl", "iqn"), (*overrides, curves.EVERY), tmp_path)]
    assert scores == [{"agent": "iqn", "seed": k, "env_steps": 6, "final_eval_return": k} for k in range(8)]
    assert [(one["agent"], one["env_step"], one["IQM"]) for one in points] == [("iqn", 3, 3.0), ("iqn", 6, 4.0)]
    assert all(one["95% CI low"] < one["IQM"] < one["95% CI high"] for one in points)


def scores_of(agent, returns):
    return [
        {"agent": agent, "seed": k, "env_steps": "3000", "final_eval_return": str(x)} for k, x in enumerate(returns)
    ]


def points_of(agent, middles):
    ends = {"95% CI low": "1.0", "95% CI high": "500.0"}
    return [
        {"agent": agent, "env_step": str(1000 * nth), "IQM": str(middle), **ends}
        for nth, middle in enumerate(middles, start=1)
    ]


def test_the_table_has_the_iqm_of_the_scores_and_the_first_step_at_which_the_curve_reaches_475():
    scores = [*scores_of("dqn", [0, 100, 200, 300, 400, 500, 500, 500]), *scores_of("iqn", [500.0] * 5)]
    points = [*points_of("dqn", [10, 474.9, 474.99]), *points_of("iqn", [10, 475.0, 300.0])]
    first, second = curves.summarise(scores, points)
    assert (first["agent"], first["steps"], first["seeds"], first["final return, IQM"]) == ("dqn", "3,000", 8, "350")
    low, high = map(float, first["95% CI"].split(" to "))
    assert 0 < low < 350 < high <= 500
    assert first["IQM first reaches 475 at step"] == "-"
    assert (second["95% CI"], second["IQM first reaches 475 at step"]) == ("500 to 500", "2,000")
    assert curves.summarise(scores_of("dqn", [1.0, 2.0]), [])[0]["95% CI"] == "-"


def test_an_agent_that_is_trained_again_replaces_its_own_lines_only():
    lines = [*points_of("dqn", [1, 2]), *points_of("iqn", [3])]
    again = curves.replace(lines, points_of("dqn", [7]))
    assert [(one["agent"], one["IQM"]) for one in again] == [("dqn", "7"), ("iqn", "3")]
    more = curves.replace(lines, points_of("c51", [9]))
    assert [one["agent"] for one in more] == ["dqn", "dqn", "c51", "iqn"]


@pytest.fixture
def results(tmp_path, monkeypatch):
    for module in (harness, pictures):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    return tmp_path


def test_training_is_kept_after_every_agent_and_the_picture_of_a_page_waits_for_its_agents(results, monkeypatch):
    def train(name, folder, steps, seeds):
        assert (steps, seeds) == (curves.STEPS, curves.SEEDS)
        if name == "munchausen":
            raise SystemExit(130)
        return scores_of(name, range(10)), points_of(name, [1, 2])

    monkeypatch.setattr(curves, "train", train)
    monkeypatch.setattr("sys.argv", ["curves", "--out", str(results)])
    with pytest.raises(SystemExit, match="130"):
        curves.main()
    monkeypatch.setattr("sys.argv", ["curves", "--agents", "rainbow"])
    curves.main()
    assert list(dict.fromkeys(one["agent"] for one in learning.read("curves"))) == ["dqn", "double_dqn", "rainbow"]
    assert len(learning.read("curves_scores")) == 30
    assert {path.name for path in results.glob("*.png")} == {"curves_rainbow.png"}
    first = (results / "curves_rainbow.png").read_bytes()
    (results / "curves_rainbow.png").unlink()
    monkeypatch.setattr("sys.argv", ["curves", "--table"])
    curves.main()
    assert (results / "curves_rainbow.png").read_bytes() == first
    assert len(learning.read("curves_table")) == 3


def test_a_quick_run_keeps_nothing(results, monkeypatch, capsys):
    monkeypatch.setattr(curves, "train", lambda name, *_: (scores_of(name, [1, 2]), points_of(name, [1])))
    monkeypatch.setattr("sys.argv", ["curves", "--quick"])
    curves.main()
    assert list(results.iterdir()) == []
    assert capsys.readouterr().out.count("\n") == 4


def test_an_agent_that_does_not_exist_is_reported_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["curves", "--agents", "dqn", "pqn"])
    with pytest.raises(SystemExit, match="2"):
        curves.main()
    assert capsys.readouterr().err.startswith("error: unknown agent 'pqn'; choose from dqn, ")


@pytest.mark.parametrize("page", curves.PAGES)
def test_a_picture_has_the_curves_of_its_page_which_differ_in_colour_and_line(page):
    names = ["dqn", *curves.PAGES[page]]
    labels = ["plain DQN", *curves.PAGES[page], "solved (475)"]
    points = [point for nth, name in enumerate(curves.AGENTS) for point in points_of(name, [nth, 2 * nth, 500])]
    figure = curves.draw(page, points, seeds=7)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.get_lines()] == labels
    *lines, _ = axes.get_lines()
    colors = [to_hex(line.get_color()).upper() for line in lines]
    assert colors == [OTHERS_COLOR, *COLORS[: len(names) - 1]]
    assert len({line.get_linestyle() for line in lines}) == min(4, len(names))
    assert len({line.get_marker() for line in lines}) == len(names)
    assert [line.get_xydata().tolist() for line in lines] == [
        [[step, value] for step, value in zip((1, 2, 3), (nth, 2 * nth, 500), strict=True)]
        for nth in map(list(curves.AGENTS).index, names)
    ]
    for band in axes.collections:
        assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (1, 500)
    assert len(axes.collections) == len(names)
    assert "7 seeds" in axes.get_title()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps (thousand)", "greedy return")


def test_all_pages_have_the_same_axes_with_the_highest_interval_of_all():
    points = [point for name in curves.AGENTS for point in points_of(name, [1, 2])]
    points[-1]["95% CI high"] = "700.0"
    limits = {curves.draw(page, points, seeds=7).axes[0].get_ylim() for page in curves.PAGES}
    assert limits == {(0, 728)}


def test_the_legend_of_a_picture_covers_no_curve():
    page = max(curves.PAGES, key=lambda page: len(curves.PAGES[page]))
    points = [point for name in curves.AGENTS for point in points_of(name, np.linspace(9, 500, 9))]
    figure = curves.draw(page, points, seeds=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_tightbbox())
    assert figure.bbox.containsx(legend.get_window_extent().x0) and figure.bbox.containsx(legend.get_window_extent().x1)


def test_what_the_page_says_of_the_results_is_true():
    """Which agents have intervals above plain DQN's at the end: the sentence is written by hand."""
    intervals = {one["agent"]: list(map(float, one["95% CI"].split(" to "))) for one in learning.read("curves_table")}
    above = {name for name, (low, _) in intervals.items() if low > intervals["dqn"][1]}
    below = {name for name, (_, high) in intervals.items() if high < intervals["dqn"][0]}
    assert (above, below) == ({"n_step", "bootstrapped", "bootstrapped_priors"}, set())
    text = (harness.ROOT / "docs" / "results" / "ablation.md").read_text()
    assert "the intervals of `n_step` and of both ensembles are above that of plain DQN, and all others overlap" in text
