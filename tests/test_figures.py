"""Figures fit for a paper: colours for everybody, axes as the values are, labels that touch nothing, formats."""

import functools
import itertools

import numpy as np
import optuna
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from purejaxdqn import load_config
from purejaxdqn.pictures import runs as pictures
from purejaxdqn.pictures.comparisons import draw_improvement, draw_profile
from purejaxdqn.pictures.figures import ink_on, nice_edges, save_figure, save_figures, scale_of, score_colors, style
from purejaxdqn.pictures.palette import COLORS, look
from purejaxdqn.pictures.panels import by_environment
from purejaxdqn.pictures.runs import ComparedRun
from purejaxdqn.pictures.searches import search_figures
from purejaxdqn.pictures.sweeps import draw_ranking, sweep_figures
from purejaxdqn.pictures.swept_values import draw_against
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.searches import study as studies
from purejaxdqn.searches.scores import Score
from purejaxdqn.searches.storage import open_study
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult, summarise_points
from purejaxdqn.sweeps.spaces import Choices, Range
from tests.conftest import TINY, mostly_slow

# Machado, Oliveira and Fernandes (2009), table 1: severity 1.0, for linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3),
}


def lab(color, kind):
    """CIE L*a*b* of a colour as somebody with this kind of colour blindness sees it."""
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[kind]) @ linear, 0.0, 1.0)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ seen / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_colours_differ_for_everybody(kind):
    """A distance of 2.3 in L*a*b* is just noticeable; that of tab10's closest two to a deuteranope is 5."""
    seen = [lab(color, kind) for color in COLORS]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 14
    assert all(one[0] < 80 for one in seen)  # none is too pale on white


def test_curves_of_one_colour_differ_in_their_lines():
    assert len({(one.color, one.linestyle) for one in map(look, range(28))}) == 28
    assert len({one.marker for one in map(look, range(7))}) == 7


@pytest.mark.parametrize("kind", BLINDNESS)
def test_darker_is_better_for_everybody(kind):
    lightness = [lab(color, kind)[0] for color in score_colors()(np.linspace(0, 1, 20))]
    assert (np.diff(lightness) < 0).all()
    assert lightness[0] < 90


def test_text_on_a_colour_has_contrast():
    assert [ink_on(to_rgb(color)) for color in ("white", "yellow", "navy", "black")] == ["black"] * 2 + ["white"] * 2


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1e-4, 3e-4, 1e-3), "log"),
        ((1e-5, 1e-2), "log"),
        ((1, 2, 4, 8, 16), "log"),
        (np.geomspace(1e-5, 1e-2, 64), "log"),
        ((1, 3), "linear"),
        ((1, 2, 3, 4, 5), "linear"),
        ((0.9, 0.95, 0.99), "linear"),
        (np.linspace(0.1, 9, 50), "linear"),
        ((0, 1e-4, 1e-3), "linear"),
        ((-1, 10, 100), "linear"),
        ((5.0,), "linear"),
    ],
    ids=str,
)
def test_an_axis_is_logarithmic_where_its_values_are(values, scale):
    assert scale_of(values) == scale


@pytest.mark.parametrize("values", [[0.0, 3.3, 9.9], [5.0], [-123.0, 7.0], [1e-4, 1.7e-4], [0.0, 500.0]], ids=str)
def test_bins_have_round_edges_and_hold_all_values(values):
    edges = nice_edges(np.array(values), 10)
    assert edges[0] <= min(values)
    assert edges[-1] >= max(values)
    assert 2 <= len(edges) <= 12
    counts, _ = np.histogram(values, edges)
    assert counts.sum() == len(values)
    assert counts[0] > 0 or len(edges) == 2
    width = np.diff(edges)
    assert np.allclose(width, width[0])
    digits = width[0] / 10 ** np.floor(np.log10(width[0]))
    assert np.isclose([1, 2, 2.5, 5, 10], digits).any()


def make_metrics(seeds, steps=12, level=200.0):
    generator = np.random.default_rng(seeds)
    columns = {name: generator.uniform(1, 2, (seeds, steps)) for name in Metrics._fields}
    returns = level * np.linspace(0.1, 1, steps) * generator.uniform(0.7, 1.1, (seeds, steps))
    return Metrics(**columns)._replace(
        env_step=np.tile(np.arange(1, steps + 1) * 5000.0, (seeds, 1)),
        episode_return=0.8 * returns,
        eval_return=returns,
    )


@functools.cache
def config_in(env_id):
    return load_config("cartpole_cleanrl", [*TINY, f"env.id={env_id}"])


def make_sweep(settings, seeds=5):
    """Points, results and summaries of a sweep; ``settings`` maps swept keys to values, one mapping for each point."""
    generator = np.random.default_rng(0)
    points = [Point(config_in(swept.get("env.id", "CartPole-v1")), swept) for swept in settings]
    results = [
        RunResult(
            *(Run(k, seed), float(generator.normal(100 + 10 * k, 30)), 0.0, None, False),
            np.arange(1, 9) * 5000.0, generator.normal(100, 20, 8), np.zeros(8),
        )
        for k in range(len(points))
        for seed in range(seeds)
    ]  # fmt: skip
    return points, results, summarise_points(points, results)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    space = {
        "optimizer.learning_rate": Range(1e-5, 1e-2, log=True),
        "exploration.fraction": Range(0.1, 0.6),
        "schedule.target_every": Range(10, 500, step=10),
        "network.hidden": Choices(("[64, 64]", "[120, 84]", "[256, 256]")),
    }
    study = open_study(str(tmp_path_factory.mktemp("study") / "study.log"), "s", {})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number, trial in enumerate(studies.ask(study, space, 20, worker="me")):
        studies.tell(study, trial, Score(float(100 + 37 * number % 211), None))
    return study, space


GRID = [
    {"optimizer.learning_rate": rate, "gamma": gamma}
    for rate in (1e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)
    for gamma in (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
]
DRAWN = [
    {"optimizer.learning_rate": float(rate), "exploration.end": float(end)}
    for rate, end in zip(np.geomspace(1e-5, 1e-2, 24), np.random.default_rng(0).uniform(0.01, 0.1, 24), strict=True)
]
COMPARED = [{"config": f"a_preset_with_a_rather_long_name_{k}"} for k in range(10)]
WORLDS = [
    {"env.id": env_id, "optimizer.learning_rate": rate}
    for env_id in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
    for rate in (1e-4, 3e-4, 1e-3)
]


def figures_of(kind, study):
    metrics = make_metrics(30)
    several = [("CartPole-v1", 475.0), ("CartPole-v1", 475.0), ("Catch-bsuite", None)]
    match kind:
        case "run":
            yield "learning_curve", pictures.draw_learning_curve(metrics, title="CartPole-v1", solved_at=475.0)
            yield "report", pictures.draw_report(metrics, title="CartPole-v1", solved_at=475.0)
            yield "unsolved", pictures.draw_report(metrics, title="Asterix-MinAtar", solved_at=None)
            yield "one seed", pictures.draw_learning_curve(make_metrics(1), title="CartPole-v1", solved_at=None)
        case "runs":
            compared = [
                ComparedRun(f"runs/cartpole/2026-11-29-{nth}", make_metrics(5, level=99.0 * nth), *one)
                for nth, one in enumerate(several * 2)
            ]
            yield "comparison", pictures.draw_comparison(compared)
            yield "one", pictures.draw_comparison(compared[:2])
        case "search":
            yield from search_figures(*study, objective="auc")
        case _:
            settings = {"grid": GRID, "drawn": DRAWN, "compared": COMPARED, "worlds": WORLDS, "two": GRID[:2]}[kind]
            yield from sweep_figures(*make_sweep(settings))


def texts_of(figure):
    """The texts that are seen of a drawn figure; Matplotlib keeps labels of ticks beyond the ends of an axis."""
    labels, hidden = set(), set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * max(abs(low), abs(high))
        for ticks in (axis.majorTicks, axis.minorTicks):
            for tick in ticks:
                labels |= {tick.label1, tick.label2}
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {tick.label1, tick.label2}
    texts = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip() and one not in hidden]
    return [one for one in texts if one in labels or one.get_window_extent().width > 0]


def touching(figure):
    """Pairs of texts whose boxes overlap, and texts that leave the figure."""
    texts = texts_of(figure)
    boxes = [text.get_window_extent() for text in texts]
    whole = figure.bbox.padded(1)
    found = [
        ("outside", text.get_text())
        for text, box in zip(texts, boxes, strict=True)
        if not whole.containsx(box.x0)
        or not whole.containsx(box.x1)
        or not whole.containsy(box.y0)
        or not whole.containsy(box.y1)
    ]
    for (one, box), (other, its) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        if one.get_rotation() % 90 or other.get_rotation() % 90:
            continue  # the boxes of slanted texts overlap where the texts do not
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        if width > 0.5 and height > 0.5:
            found.append((one.get_text(), other.get_text()))
    return found


KINDS = ("run", "runs", "grid", "drawn", "compared", "worlds", "two", "search")


@pytest.fixture(scope="module")
def drawn(study):
    """The figures of a kind by their names, as they are saved."""

    @functools.cache
    def call(kind):
        figures = dict(figures_of(kind, study))
        with style():
            for figure in figures.values():
                FigureCanvasAgg(figure).draw()
        return figures

    return call


@pytest.mark.parametrize("kind", mostly_slow(KINDS, fast=("run", "search")))
def test_labels_touch_nothing(kind, drawn):
    found = {name: touching(figure) for name, figure in drawn(kind).items()}
    assert found
    assert not {name: pairs for name, pairs in found.items() if pairs}


def test_that_labels_touch_is_seen():
    figure = pictures.draw_learning_curve(make_metrics(3), title="a title", solved_at=None)
    figure.axes[0].text(0.5, 1.03, "another", transform=figure.axes[0].transAxes)
    figure.axes[0].text(0.95, 0.5, "much too long to be inside", transform=figure.axes[0].transAxes).set_in_layout(
        False
    )
    FigureCanvasAgg(figure).draw()
    assert {("a title", "another"), ("outside", "much too long to be inside")} <= {
        tuple(sorted(one)) if "outside" not in one else one for one in touching(figure)
    }


def test_each_environment_has_its_own_axes(drawn):
    for name, figure in drawn("worlds").items():
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert len(panels) == 3, name
    compared = drawn("runs")["comparison"]
    titles = [axes.get_title() for axes in compared.axes]
    assert titles == ["CartPole-v1", "Catch-bsuite"]
    solved = [[line.get_ydata()[0] for line in axes.lines if line.get_label() == "solved"] for axes in compared.axes]
    assert solved == [[475.0], []]


@pytest.mark.parametrize(("seeds", "shown"), [(4, False), (5, True)])
def test_comparisons_of_points_have_an_interval_from_five_seeds_on(seeds, shown):
    points, _, summaries = make_sweep(COMPARED[:2], seeds)
    groups = by_environment(points, summaries)
    profile, (improvement, _) = draw_profile(groups).axes[0], draw_improvement(groups).axes
    assert [len(axes.collections) for axes in (profile, improvement)] == [2 * shown, 0]
    assert all(("95% CI" in axes.get_title()) == shown for axes in (profile, improvement))
    cells = [text.get_text() for text in improvement.texts]
    assert len(cells) == 2
    assert all(("\n" in cell) == shown for cell in cells)


def test_compared_runs_say_what_their_bands_are():
    runs = [ComparedRun(f"run{seeds}", make_metrics(seeds), "CartPole-v1", None) for seeds in (1, 4, 5)]
    labels = pictures.draw_comparison(runs).axes[0].get_legend_handles_labels()[1]
    assert labels == ["run1", "run4 (IQM of 4 seeds, range)", "run5 (IQM of 5 seeds, 95% CI)"]


def test_a_band_has_a_gap_where_too_few_seeds_are_left_for_what_it_is():
    values = make_metrics(5).eval_return
    values[0, 3] = np.nan  # four seeds have a range, which is no 95% CI
    figure = pictures.draw_comparison([ComparedRun("run", make_metrics(5)._replace(eval_return=values), "x", None)])
    (band,) = figure.axes[0].collections
    steps = {x for path in band.get_paths() for x in path.vertices[:, 0]}
    assert len(steps) == 11
    assert 4 * 5000.0 not in steps


def test_where_nothing_is_solved_the_report_shows_q_values_in_its_last_quarter():
    metrics = make_metrics(3)
    last = pictures.draw_report(metrics, title="", solved_at=None).axes[-1]
    (line,) = last.lines
    assert last.get_ylabel() == "Q-value"
    assert np.isfinite(line.get_ydata()).all()
    assert pictures.draw_report(metrics, title="", solved_at=475.0).axes[-1].get_ylabel() == "episodes solved (%)"


def test_swept_values_are_ticks_and_learning_rates_are_logarithmic(drawn):
    points, _, summaries = make_sweep(GRID)
    against = draw_against(by_environment(points, summaries), points, x="optimizer.learning_rate").axes[0]
    assert against.get_xscale() == "log"
    assert [text.get_text() for text in against.get_xticklabels()] == ["0.0001", "0.00025", "0.0005", "0.001", "0.002"]
    slices = drawn("search")["slices"]
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in slices.axes if axes.get_xlabel()}
    assert scales["optimizer.learning_rate"] == "log"
    assert scales["exploration.fraction"] == "linear"


def test_each_seed_has_a_dot_that_no_other_hides():
    points, results, _ = make_sweep(GRID[:3], seeds=4)
    results = [one._replace(final_eval_return=500.0) for one in results]
    ranking = draw_ranking(by_environment(points, summarise_points(points, results)))
    dots = [line for line in ranking.axes[0].lines if line.get_marker() == "o"]
    places = {(x, round(y, 3)) for line in dots for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert len(places) == 12


def test_counts_are_whole_and_bins_have_their_edges_as_ticks(drawn):
    found = drawn("search")
    for name, axis in (("history", "xaxis"), ("scores", "yaxis")):
        ticks = getattr(found[name].axes[0], axis).get_majorticklocs()
        assert (ticks == np.round(ticks)).all(), name
    axes = found["scores"].axes[0]
    edges = sorted({edge for bar in axes.patches for edge in (bar.get_x(), bar.get_x() + bar.get_width())})
    ticks = {*axes.xaxis.get_majorticklocs(), *axes.xaxis.get_minorticklocs()}
    assert set(np.round(edges, 6)) == set(np.round(list(ticks), 6))


def test_a_figure_has_the_same_bytes_each_time_in_every_format(tmp_path):
    metrics = make_metrics(3)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        figure = pictures.draw_learning_curve(metrics, title="", solved_at=None)
        drawn = save_figures(tmp_path / folder, [("x", figure)], ("png", "pdf", "svg"))
        assert [path.name for path in drawn] == ["x.png", "x.pdf", "x.svg"]
    heads = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for suffix, head in heads.items():
        one, two = ((tmp_path / folder / f"x.{suffix}").read_bytes() for folder in ("one", "two"))
        assert one.startswith(head)
        assert one == two
    assert b"/Type3" not in (tmp_path / "one" / "x.pdf").read_bytes()
    assert b"/Type /Font" in (tmp_path / "one" / "x.pdf").read_bytes()
    with pytest.raises(KeyError):
        save_figure(figure, tmp_path / "x.txt")
