"""Damage to any file that a command leaves: every reader gives the same result, or says what is wrong in a line."""

import json
import random
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from purejaxdqn import load_config
from purejaxdqn.config.reading import to_yaml
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.pictures import searches as search_pictures
from purejaxdqn.pictures import sweeps as sweep_pictures
from purejaxdqn.plot import main as plot
from purejaxdqn.policies import policies
from purejaxdqn.policies.exported import load_exported
from purejaxdqn.report import main as report
from purejaxdqn.runs.metrics import COLUMNS
from purejaxdqn.search import main as search
from purejaxdqn.searches import runner as search_runner
from purejaxdqn.searches.tables import read_retest, write_retest
from purejaxdqn.searches.trials import TrialResult
from purejaxdqn.sweep import main as sweep
from purejaxdqn.sweeps import directory as sweep_directory
from purejaxdqn.sweeps import runner as sweep_runner
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult
from purejaxdqn.train import main as train
from tests.conftest import TINY, quick_compiler

FLIPS, CUTS = 4, 3
"""Damages of a file, of each kind."""
WITHOUT_SEARCHED = [word for word in TINY if word.partition("=")[0] not in ("optimizer.learning_rate", "schedule.tau")]
SWEEP = ["--config", "cartpole_cleanrl", "--seeds", "2", "--quiet", "--no-cache", "gamma=0.9,0.99", *TINY]
SEARCH = [
    "--config",
    "cartpole_cleanrl",
    "--seeds",
    "1",
    "--trials",
    "3",
    "--batch",
    "2",
    "--retest",
    "2",
    "--quiet",
    "--no-cache",
]
SPACE = "optimizer.learning_rate: {low: 1e-4, high: 5e-3, log: true}\nschedule.tau: {low: 0.1, high: 1.0}\n"


def damages(content, name):
    """Copies of ``content``, cut and with one bit flipped, at places that depend on the name alone."""
    generator = random.Random(zlib.crc32(name.encode()))
    cuts = {0, max(len(content) - 1, 0), *(generator.randrange(len(content) + 1) for _ in range(CUTS - 2))}
    for length in sorted(cuts - {len(content)}):
        yield f"cut at {length}", content[:length]
    for _ in range(FLIPS if content else 0):
        place, bit = generator.randrange(len(content)), 1 << generator.randrange(8)
        yield f"bit {bit} at {place}", content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory of each kind, trained once."""
    place = tmp_path_factory.mktemp("made")
    (place / "space.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch, quick_compiler():
        patch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda **_: None)
        run = ["--config", "cartpole_cleanrl", "--quiet", "--no-cache", "num_seeds=2", "checkpoint.every=40"]
        assert train([*run, "--out", str(place / "run"), *TINY, "evaluation.every=40"]) == 0
        assert export([str(place / "run"), "--format", "safetensors", "--out", str(place / "exported")]) == 0
        assert sweep([*SWEEP, "--out", str(place / "sweep")]) == 0
        assert (
            search([*SEARCH, "--space", str(place / "space.yaml"), "--out", str(place / "search"), *WITHOUT_SEARCHED])
            == 0
        )
    return place


class Readers:
    """What reads a directory of each kind; ``found`` is what a reader would have used of the directory's contents."""

    def __init__(self, made, quietly, monkeypatch):
        self.made, self.quietly, self.monkeypatch, self.found = made, quietly, monkeypatch, None
        keep = lambda *found: setattr(self, "found", found) or []  # noqa: E731
        monkeypatch.setattr("purejaxdqn.pictures.run_directory.draw_run", lambda _, *found: keep(*found))
        monkeypatch.setattr("purejaxdqn.pictures.run_reports._curves", lambda *_: iter(()))
        monkeypatch.setattr("purejaxdqn.pictures.run_reports.film_best_agent", lambda *_, **__: "")
        monkeypatch.setattr(sweep_pictures, "draw_sweep", lambda _, *found: keep(*found))
        monkeypatch.setattr(
            search_pictures, "draw_search", lambda _, study, *found, **more: keep(study.trials, *found, more)
        )
        monkeypatch.setattr(policies, "evaluate_policy", self.play)
        monkeypatch.setattr("purejaxdqn.runs.runner.run", self.resume)
        monkeypatch.setattr(sweep_runner, "train_stage", self.train_stage)
        monkeypatch.setattr(search_runner, "train_batch", self.train_batch)

    def play(self, config, params, **_):
        self.found = config.model_copy(update={"total_timesteps": 0}), params
        return np.zeros((2, 1))

    def resume(self, opened, *_, **__):
        self.found = opened.snapshot
        return json.loads((self.made / "run" / "summary.json").read_text())

    def train_stage(self, points, work, *_):
        missing = {run for group in work.groups for run in group.runs}
        return [one for one in sweep_directory.load_pieces(self.made / "sweep") if missing & set(one.runs)]

    def train_batch(self, points, seeds, settings):
        def of(point, seed):
            return RunResult(Run(point, seed), 9.0, 9.0, None, False, np.arange(2), np.ones(2), np.ones(2))

        return [TrialResult(k, [of(k, seed) for seed in range(seeds)], [], False) for k in range(len(points))]

    def call(self, reader, folder):
        """The exit code, what is said, and what was read."""
        self.found = None
        main, *arguments = {
            "evaluate": (evaluate, folder, "--episodes", 1),
            "export": (export, folder, "--format", "safetensors", "--out", folder / "again"),
            "plot": (plot, folder),
            "report": (report, folder),
            "resume": (train, "--resume", folder, "--quiet", "--no-cache", "total_timesteps=640"),
            "sweep": (sweep, *SWEEP, "--out", folder),
            "search": (search, *SEARCH, "--space", self.made / "space.yaml", "--out", folder, *WITHOUT_SEARCHED),
            "load": (self.load, folder),
        }[reader]
        code, _, err = self.quietly(main, *arguments)
        if reader == "export" and code == 0:
            self.found = {path.name: path.read_bytes() for path in (folder / "again").iterdir()}
            del self.found["README.md"], self.found["policy.json"]  # the score, the versions
        return code, [line for line in err if line.startswith(("error: ", "warning: "))], err, self.found

    def load(self, arguments):
        env, config, params = load_exported(Path(arguments[0]))
        self.found = config, params, env.features.keywords
        return 0


def same(one, other):
    """Whether two results are equal, NaN included."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, float):
        return np.array_equal(one, other, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, FrozenTrial):
        return (one.number, one.state, one.values, one.params) == (
            other.number,
            other.state,
            other.values,
            other.params,
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


READERS = {
    "run": ("evaluate", "export", "plot", "report", "resume"),
    "exported": ("load", "evaluate"),
    "sweep": ("plot", "report", "sweep"),
    "search": ("plot", "report", "search"),
}


def readers_of(kind, path):
    """The readers that open a file of a directory of a kind."""
    if "checkpoints" in path.parts:
        return ("resume",)
    if "pieces" in path.parts:
        return ("plot", "sweep")
    return ("report",) if path.suffix in (".png", ".csv") and path.name != "metrics.csv" else READERS[kind]


def is_compared(reader, path):
    """Whether what was read must be equal: a report shows the tables that it finds."""
    return reader != "report" or path.name == "summary.json"


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_damage_to_any_file_is_reported_in_one_line_or_makes_no_difference(kind, made, quietly, monkeypatch, tmp_path):
    readers = Readers(made, quietly, monkeypatch)
    sound = {}
    for reader in READERS[kind]:
        code, lines, err, sound[reader] = readers.call(
            reader, shutil.copytree(made / kind, tmp_path / f"sound-{reader}")
        )
        assert (code, lines) == (0, []), (reader, err)
    problems = []
    for path in sorted(path.relative_to(made / kind) for path in (made / kind).rglob("*") if path.is_file()):
        for what, content in damages((made / kind / path).read_bytes(), str(path)):
            for reader in readers_of(kind, path):
                folder = shutil.copytree(made / kind, tmp_path / "copy")
                (folder / path).write_bytes(content)
                try:
                    code, lines, err, found = readers.call(reader, folder)
                    told = bool(lines) and all(len(line) < 1000 for line in err)
                    fine = told if code else told or not is_compared(reader, path) or same(sound[reader], found)
                    fine = fine and code in (0, 2)
                except Exception as error:
                    fine, err = False, repr(error)
                if not fine:
                    problems.append(f"{reader}: {path} {what}: {err}")
                shutil.rmtree(folder)
    assert not problems, "\n".join(problems)


@pytest.fixture
def small(tmp_path):
    """A sweep's directory without pieces, and a run's with nothing but a config and metrics."""
    config = load_config("cartpole_cleanrl", TINY)
    description = sweep_directory.describe([Point(config, {"gamma": config.gamma})], 2)
    with sweep_directory.hold_directory(tmp_path / "sweep", description):
        pass
    described = tmp_path / "sweep" / "sweep.yaml"
    described.write_text(described.read_text().partition("# sha256: ")[0])  # as earlier versions wrote it
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    (tmp_path / "run" / "metrics.csv").write_text(f"{','.join(COLUMNS)}\n{','.join('1' for _ in COLUMNS)}\n")
    return tmp_path


def in_a_line(said, *words):
    code, out, err = said
    return (code, out, len(err)) == (2, [], 1) and all(word in err[0] for word in ("error: ", *words))


@pytest.mark.parametrize("main", [plot, report])
@pytest.mark.parametrize(
    "row",
    [
        "1" * 140_000,
        *(
            f"{index},{step}" + ",1" * (len(COLUMNS) - 2)
            for index, step in (("", 1), ("-1", 1), (10**30, 1), ("0", ""), (0, "inf"))
        ),
        "0",
        "0\x00",
    ],
    ids=["a cell of 140,000", "no index", "negative", "large", "no step", "infinite step", "short", "NUL"],
)
def test_metrics_that_are_damaged_are_reported_in_one_line(main, row, small, quietly):
    (small / "run" / "metrics.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    assert in_a_line(quietly(main, small / "run"), "metrics.csv is damaged")


def test_a_table_with_a_long_cell_is_reported_in_one_line(small, quietly):
    (small / "points.csv").write_text(f"point\n{'1' * 140_000}\n")
    assert in_a_line(quietly(report, small), "points.csv is damaged: field larger than field limit")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_seeds: 2", "num_seeds: 0"),
        ("num_seeds: 2", "num_seeds: {}"),
        ("points:", "points: []\nmore:"),
        ("points:", "points: [3]\nmore:"),
        ("points:", "point:"),
        ('swept: {"gamma": 0.99}', "swept: {gamma: 0.98}"),
        ('swept: {"gamma": 0.99}', "swept: {x/../../name: 0.99}"),
        ('swept: {"gamma": 0.99}', "swept: 3"),
        ('swept: {"gamma": 0.99}', "swept: {config: [1]}"),
        ("gamma: 0.99", "gamma: !!timestamp x"),
        ("num_seeds: 2", "[" * 100_000),
        ("num_seeds: 2", "\x00"),
    ],
)
def test_a_damaged_sweep_is_reported_in_one_line(old, new, small, quietly):
    path = small / "sweep" / "sweep.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert in_a_line(quietly(plot, small / "sweep"), "sweep.yaml")
    assert in_a_line(quietly(sweep, *SWEEP, "--out", small / "sweep"), "--out: ")


def test_a_sweep_whose_description_has_changed_is_reported_in_one_line(tmp_path, quietly):
    config = load_config("cartpole_cleanrl", TINY)
    points = [Point(config, {"gamma": config.gamma})]
    with sweep_directory.hold_directory(tmp_path / "sweep", sweep_directory.describe(points, 2)):
        pass
    assert sweep_directory.read_directory(tmp_path / "sweep") == (
        [Point(config.model_copy(update={"num_seeds": 1}), {"gamma": config.gamma})],
        2,
    )
    path = tmp_path / "sweep" / "sweep.yaml"
    path.write_text(path.read_text().replace('"tau": 0.5', '"tau": 0.7', 1))
    assert in_a_line(quietly(plot, tmp_path / "sweep"), "sweep.yaml cannot be read: it does not match the digest")


def test_a_sweep_of_more_seeds_than_can_be_listed_lacks_them(small, quietly):
    path = small / "sweep" / "sweep.yaml"
    path.write_text(path.read_text().replace("num_seeds: 2", "num_seeds: 2000000000", 1))
    assert in_a_line(quietly(plot, small / "sweep"), "2000000000 of 2000000000 runs are missing")


@pytest.mark.parametrize("damage", ["[]", "3", "{", "[" * 100_000, "{}", "digit"])
def test_a_damaged_retest_is_made_again(damage, tmp_path, capsys):
    config = load_config("cartpole_cleanrl", TINY)
    trial = SimpleNamespace(number=0, value=9.0, params={})
    result = RunResult(Run(0, 0), 9.0, 9.0, None, False, np.arange(2), np.ones(2), np.ones(2))
    retest = write_retest(tmp_path, config, trial, [result])
    assert read_retest(tmp_path, config) == retest
    path = tmp_path / "best_retest.json"
    path.write_text(path.read_text().replace('"iqm": 9.0', '"iqm": 8.0') if damage == "digit" else damage)
    assert capsys.readouterr().err == ""
    assert read_retest(tmp_path, config) is None
    assert capsys.readouterr().err.startswith(f"warning: {path} is damaged, and the best trial is tested again: ")
    path.unlink()
    assert read_retest(tmp_path, config) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "summary",
    [
        "[1]",
        "3",
        "{",
        "[" * 100_000,
        '{"iqm": "x"}',
        '{"iqm_ci95": [1]}',
        '{"env_steps_per_second": null}',
        '{"versions": 3}',
    ],
)
def test_a_damaged_summary_costs_a_report_no_traceback(summary, small, quietly):
    (small / "run" / "summary.json").write_text(summary)
    code, _, err = quietly(report, small / "run")
    assert code in (0, 2)
    assert len([line for line in err if line.startswith("error: ")]) == (code == 2)
