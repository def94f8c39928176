"""The learning benchmark: its rows can run, its table counts rightly, and it refuses seeds that a search has seen."""

import csv
import json
import re
import signal
import sys

import numpy as np
import pytest

from benchmarks import harness, learning, tuning
from purejaxdqn.config.reading import read_config, to_yaml
from purejaxdqn.runs.metrics import COLUMNS
from tests.conftest import SUITES_OF_CONFIGS, TRAINABLE


@pytest.mark.parametrize("name", learning.ROWS)
def test_every_row_is_a_config_that_can_run_for_the_steps_it_names(name):
    row = learning.ROWS[name]
    if missing := [one for one in row.configs if one not in TRAINABLE]:
        pytest.skip(f"{SUITES_OF_CONFIGS[missing[0]]} is not installed")
    steps = learning.steps_of(row)
    # Without replay a row has 20 epochs of whole rollouts.
    slack = {"pqn": row.steps // 100, "suites": row.steps // 20}.get(row.group, 1_000)
    assert row.steps - slack < steps <= row.steps
    config = read_config(row.configs, learning.overrides_of(row, row.seed)).checked()
    assert (config.total_timesteps, config.num_seeds, config.seed) == (steps, row.seeds, row.seed)
    assert config.evaluation.final_episodes >= 100
    assert config.checkpoint.every <= steps / 10  # what a row loses if its machine stops


def test_no_row_is_tested_on_seeds_that_found_its_config():
    assert [name for name, row in learning.ROWS.items() if learning.find_overlap(row.configs, row.seed)] == []


def test_the_seeds_of_a_search_and_of_its_second_test_are_refused(capsys, monkeypatch):
    (searched,) = learning.searched_seeds((harness.ROOT / "configs" / "mountaincar.yaml").read_text())
    for seed, refused in ((searched - 1, False), (searched, True), (searched + 1, True), (searched + 2, False)):
        assert bool(learning.find_overlap(("catch", "mountaincar"), seed)) is refused
    monkeypatch.setattr("sys.argv", ["learning", "--row", "catch/dqn", "mountaincar/dqn", "--seed", str(searched)])
    with pytest.raises(SystemExit, match="2"):
        learning.main()
    assert f"seed {searched} was used by the search behind mountaincar.yaml" in capsys.readouterr().err


def test_a_header_with_a_search_and_no_seed_is_no_licence():
    assert learning.searched_seeds("# text\n# search: trials=3 seed=5 seeds=4\n# search: seed=9\n") == [5, 9]
    with pytest.raises(SystemExit, match="without its seed"):
        learning.searched_seeds("# search: seeds=4 trials=3\n")


def test_every_environments_config_names_its_search_and_the_search_its_space():
    configs = harness.ROOT / "configs"
    without = set()
    for path in (*configs.glob("*.yaml"), *configs.glob("minatar/*.yaml")):
        text = path.read_text()
        if "\nenv: {id" not in text:
            continue  # an algorithm's
        if not learning.searched_seeds(text):
            without.add(path.stem)
        assert all((configs / f"{space}.yaml").is_file() for space in re.findall(r"^# search: space=(\S+)", text, re.M))
    # CleanRL's, two where every policy is as good as another, and by hand
    assert without == {
        *("cartpole_cleanrl", "deepsea_ensemble", "memory_chain_dqn", "mountaincar_sparse", "simple_bandit", "swingup")
    }


def lines_of(name: str, environment: str, scores: list[float]) -> list[dict]:
    common = {"row": name, "environment": environment, "env_steps": "100000", "training_return": "0"}
    return [{**common, "final_eval_return": str(score), "first_solved_step": ""} for score in scores]


def test_a_row_is_reached_by_the_lower_end_of_the_interval_and_not_by_the_mean():
    near = [*[0.9] * 10, *[0.96] * 10, *[1.0] * 10]
    assert learning.summarise_row("catch/dqn", lines_of("catch/dqn", "Catch-bsuite", near))["reached"] == "no"
    clear = [0.94, *[0.99] * 29]
    assert learning.summarise_row("catch/dqn", lines_of("catch/dqn", "Catch-bsuite", clear))["reached"] == "yes"


@pytest.mark.parametrize(("good", "reached"), [(28, "no"), (29, "yes")])
def test_a_row_may_ask_for_a_number_of_seeds(good, reached):
    lines = lines_of("cartpole/100k", "CartPole-v1", [500.0] * good + [499.99] * (30 - good))
    row = learning.summarise_row("cartpole/100k", lines)
    assert (row["reached"], row["seeds that reach it"]) == (reached, f"{good} of 30 at 500")


def test_a_row_with_fewer_seeds_than_it_asks_for_stays_open():
    row = learning.summarise_row("catch/dqn", lines_of("catch/dqn", "Catch-bsuite", [1.0] * 29))
    assert (row["reached"], row["note"]) == ("open", "29 of 30 seeds so far")
    row = learning.summarise_row("cartpole/100k", lines_of("cartpole/100k", "CartPole-v1", [500.0] * 29))
    assert (row["reached"], row["seeds that reach it"]) == ("open", "29 of 29 at 500")
    row = learning.summarise_row("freeway/pqn_10m", lines_of("freeway/pqn_10m", "Freeway-MinAtar", [99.0] * 3))
    assert (row["reached"], row["95% CI"]) == ("open", "-")  # of three seeds there is no interval


def test_rows_of_suites_take_the_return_of_random_play_from_results(monkeypatch):
    """Their packages are not needed for the table, and a row whose target needs a line that is missing says so."""
    monkeypatch.setattr(learning, "stored_random", {"octax/brix": (1.0, 0.05)}.get)
    learning.random_policy.cache_clear()
    assert learning.target_of("octax/brix") == pytest.approx(1.5)
    assert learning.summarise_row("octax/brix", lines_of("octax/brix", "octax:brix", [2.0] * 5))["random policy"] == "1"
    with pytest.raises(SystemExit, match="optimal --suites"):
        learning.target_of("octax/pong")
    learning.random_policy.cache_clear()


def test_a_row_may_ask_for_a_share_of_the_best_possible_return():
    assert learning.target_of("discounting_chain/dqn") == pytest.approx(0.9 * 1.1)


def test_the_hours_of_a_group_are_those_of_all_seeds_of_its_rows(monkeypatch):
    rows = {group: learning.Row(("catch",), 3_600_000, seeds=2, group=group) for group in ("pqn", "all")}
    monkeypatch.setattr(learning, "ROWS", {**rows, "other": rows["pqn"]._replace(seeds=4)})
    assert learning.hours_of("pqn", rate=1_000) == 6


def test_the_agent_of_a_row_is_named_by_the_presets_that_make_it():
    presets = ("double_dqn", "munchausen", "dueling", "n_step", "per", "noisy", "c51", "qr_dqn", "iqn", "fqf")
    for preset in ("dqn", *presets):
        assert learning.members_of(learning.Row(("cartpole_cleanrl", preset), 1)) == preset
    rainbow = learning.members_of(learning.Row(("cartpole_cleanrl", "rainbow"), 1))
    assert rainbow == "double_dqn + dueling + n_step + per + noisy + c51"


def test_the_lines_that_are_kept_name_the_agents_of_today():
    assert {(one["row"], one["preset"]) for one in learning.read()} <= {
        (name, learning.members_of(row)) for name, row in learning.ROWS.items()
    }


def keep_run(folder, configs, overrides, summary):
    (folder / "config.yaml").write_text(to_yaml(read_config(configs, overrides).checked()))
    (folder / "summary.json").write_text(json.dumps(summary))


def test_a_run_that_is_kept_is_taken_only_for_its_own_config(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "run_to_its_end", lambda _: pytest.fail("trained again"))
    keep_run(tmp_path, ("catch",), ("seed=1",), {"iqm": 1.0})
    assert harness.train(("catch",), ("seed=1",), tmp_path) == {"iqm": 1.0}
    with pytest.raises(SystemExit) as stopped:
        harness.train(("catch",), ("seed=1", "gamma=0.9"), tmp_path)
    assert stopped.value.code == 2
    assert "another config" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_trained_by_the_command(tmp_path, monkeypatch):
    called = []

    def run(line):
        called.append(line)
        keep_run(tmp_path, ("catch", "n_step"), ("seed=1",), {"iqm": 2.0})

    monkeypatch.setattr(harness, "run_to_its_end", run)
    assert harness.train(("catch", "n_step"), ("seed=1",), tmp_path) == {"iqm": 2.0}
    options = ["--config", "catch", "--config", "n_step", "seed=1", "--quiet", "--out", str(tmp_path)]
    assert called == [[sys.executable, "-m", "purejaxdqn.train", *options]]


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    called = []
    keep_run(tmp_path, ("catch",), ("seed=1",), {"iqm": 2.0})
    (tmp_path / "summary.json").unlink()

    def run(line):
        called.append(line[3:])
        keep_run(tmp_path, ("catch",), ("seed=1",), {"iqm": 2.0})

    monkeypatch.setattr(harness, "run_to_its_end", run)
    with pytest.raises(SystemExit):
        harness.train(("catch",), ("seed=2",), tmp_path)
    assert called == []
    assert harness.train(("catch",), ("seed=1",), tmp_path) == {"iqm": 2.0}
    assert called == [["--resume", str(tmp_path), "--quiet"]]


SIGNALS_ITS_PARENT = """
import os, pathlib, signal, sys

def stop(*_):
    with pathlib.Path(sys.argv[1]).open("a") as file:
        file.write("checkpoint")
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
os.kill(os.getppid(), signal.SIGTERM)
while True:
    signal.pause()
"""


def test_a_signal_is_passed_on_and_its_effect_waited_for(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        harness.run_to_its_end([sys.executable, "-c", SIGNALS_ITS_PARENT, str(tmp_path / "file")])
    assert stopped.value.code == 143
    assert (tmp_path / "file").read_text() == "checkpoint"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_fails_ends_the_benchmark_with_its_code():
    harness.run_to_its_end([sys.executable, "-c", ""])
    with pytest.raises(SystemExit, match="2"):
        harness.run_to_its_end([sys.executable, "-c", "raise SystemExit(2)"])


def test_runs_are_kept_where_a_directory_is_named(tmp_path):
    with harness.runs_in(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()
    with harness.runs_in(None) as folder:
        assert folder.exists()
    assert not folder.exists()


def test_a_table_has_the_machine_and_commit_of_the_results_it_is_of(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "first")
    harness.write("some", [{"a": 1}])
    monkeypatch.setattr(harness, "commit", lambda: "second")
    harness.write("table", [{"a": 1}], of="some")
    assert json.loads((tmp_path / "table.json").read_text())["commit"] == "first"


def test_a_curve_is_the_iqm_of_all_seeds_at_every_evaluation(tmp_path):
    """Of eight seeds the best two and the worst two do not count."""
    scores = [[0.0, 1.0], [0.0, 1.0], [2.0, 3.0], [2.0, 3.0], [4.0, 7.0], [4.0, 7.0], [9.0, 9.0], [9.0, 99.0]]
    rows = [
        [seed if column == "seed_index" else step if column == "env_step" else values[at] for column in COLUMNS]
        for at, step in enumerate((500, 1_000))
        for seed, values in enumerate(scores)
    ]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    per_seed = {"final_eval_return": [1.0] * 8, "training_return": [2.0] * 8, "first_solved_step": [None] * 8}
    summary = {"env_id": "Catch-bsuite", "total_timesteps": 1_000, **per_seed}
    row = learning.ROWS["catch/dqn"]._replace(seeds=8)
    keep_run(tmp_path, row.configs, learning.overrides_of(row, seed=1), summary)
    lines, curve = learning.train("catch/dqn", row, tmp_path, seed=1)
    assert [one["auc"] for one in lines] == [sum(values) / 2 for values in scores]
    assert [(one["env_step"], one["IQM"]) for one in curve] == [(500, 3.0), (1_000, 5.0)]
    assert all(one["95% CI low"] <= one["IQM"] <= one["95% CI high"] for one in curve)


def test_few_seeds_have_no_interval_in_a_table_of_a_tuning():
    what = tuning.Tuning("cartpole", 7, 4, 100, (), ("",))
    few, many = (tuning.summarise(what, "", np.arange(n, dtype=float))["95% CI"] for n in (4, 20))
    assert few == "" and re.fullmatch(r"[\d.]+ to [\d.]+", many)


def test_a_change_is_laid_over_the_start_of_a_tuning():
    what = tuning.Tuning("cartpole", 7, 4, 100, ("gamma=0.9", "n_step=1"), ("n_step=3 loss=huber",))
    assert tuning.overrides(what, what.changes[0]) == [
        "gamma=0.9",
        "n_step=3",
        "loss=huber",
        "seed=7",
        "num_seeds=4",
        "total_timesteps=100",
        "evaluation.final_episodes=100",
    ]


@pytest.mark.parametrize("name", tuning.TUNED)
def test_what_was_tuned_by_hand_says_so_in_its_header(name):
    what = tuning.TUNED[name]
    text = (harness.ROOT / "configs" / f"{what.config}.yaml").read_text(encoding="utf-8")
    line = f"# search: benchmarks/tuning.py trials={len(what.changes)} seeds={what.seeds} steps={what.steps} "
    assert f"{line}objective=final seed={what.seed}\n" in text
    assert len(set(what.changes)) == len(what.changes)
    trained = trained_in(what)
    assert len({config.model_dump_json() for config in trained}) == len(trained), "two changes are the same"


@pytest.mark.parametrize("config", sorted({what.config for what in tuning.TUNED.values()}))
def test_what_is_shipped_was_among_what_was_tuned_by_hand(config):
    last = [what for what in tuning.TUNED.values() if what.config == config][-1]
    assert read_config((config,), tuning.overrides(last._replace(start=()), "")).checked() in trained_in(last)


def trained_in(what):
    return [read_config((what.config,), tuning.overrides(what, change)).checked() for change in what.changes]


def test_a_line_of_a_tuning_counts_seeds_that_reach_the_best():
    what = tuning.Tuning("cartpole", 7, 4, 100, (), ("",), best=500.0)
    line = tuning.summarise(what, "", np.array([500.0, 500.0, 499.0, 480.0]))
    assert (line["change"], line["seeds that reach it"], line["lowest seed"]) == ("none", "2 of 4 at 500", "480")
    better = tuning.summarise(what, "n_step=3", np.array([500.0, 500.0, 500.0, 480.0]))
    best = tuning.summarise(what, "n_step=5", np.array([500.0, 500.0, 500.0, 490.0]))  # the same IQM, a better mean
    assert tuning.sort([line, better, best]) == [best, better, line]


@pytest.mark.parametrize("picture", learning.PICTURES)
def test_a_page_shows_the_curves_of_agents_that_the_family_is_not_compared_with(picture):
    rows = learning.PICTURES[picture]
    assert set(rows) <= {one["row"] for one in learning.read("learning_curves")}
    page = harness.ROOT / "docs" / f"{picture.rpartition('_')[2]}.md"
    assert f"](../benchmarks/results/{picture}.png)" in page.read_text(encoding="utf-8")
    assert (harness.RESULTS / f"{picture}.png").is_file()
    members = {learning.members_of(learning.ROWS[row]).split(" + ")[0] for row in rows}
    assert members == {"pqn"}


def test_a_picture_has_the_curves_of_its_rows_alone(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(learning, "save", lambda figure, file: drawn.append((file, figure)))
    points = [
        {"row": row, "env_step": step, "IQM": 1.0, "95% CI low": 0.5, "95% CI high": 1.5}
        for row in ("catch/dqn", "cartpole/pqn")
        for step in (1, 2)
    ]
    for file in ("learning_curves", "learning_curves_pqn"):
        learning.draw_curves(points, file)
    titles = {file: [axes.get_title() for axes in figure.axes if axes.get_title()] for file, figure in drawn}
    assert titles == {"learning_curves": ["catch/dqn", "cartpole/pqn"], "learning_curves_pqn": ["cartpole/pqn"]}
