"""The comparison of two revisions' results sees the last bit, and the script says so."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import same_bits
from benchmarks.differences import Comparison, Difference, compare, summarise
from benchmarks.same_bits import Case, Expected, Outcome, run_commands, show, unlike


def run_directory(folder):
    """A made-up run of two seeds."""
    (folder / "run" / "checkpoints").mkdir(parents=True)
    losses = ("0.1", "0.2")
    (folder / "run" / "metrics.csv").write_text(
        "seed_index,episode_return,loss\n" + "".join(f"{seed},,{losses[seed]}\n" for seed in range(2))
    )
    summary = {"iqm": 9.5, "diverged": [False, False], "run_seconds": 1.5, "versions": {"jax": "1"}}
    (folder / "run" / "summary.json").write_text(json.dumps(summary))
    (folder / "run" / "config.yaml").write_text("gamma: 0.99\nnetwork: {hidden: [16, 16]}\n")
    (folder / "run" / "timing.csv").write_text("env_step,seconds\n10,0.5\n")
    (folder / "run" / "checkpoints" / "digest.json").write_text("{}")
    (folder / "evaluate.json").write_text(json.dumps({"returns": [[9.0, 10.0], [8.0, 9.0]]}))
    tensors = {"layer/weight": np.linspace(-1, 1, 6, dtype=np.float32), "layer/bias": np.zeros(2, np.float32)}
    save_file(tensors, folder / "run" / "policy.safetensors")
    (folder / "exit_codes.json").write_text(json.dumps({"0 train": "0"}))


@pytest.fixture
def both(tmp_path):
    run_directory(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "today")
    return tmp_path / "base", tmp_path / "today"


def replace(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def lines(comparison):
    return [str(one) for one in comparison.differences], comparison.additions


def test_what_varies_between_equal_runs_is_no_difference(both):
    base, today = both
    replace(today / "run" / "summary.json", "1.5", "2.5")
    replace(today / "run" / "summary.json", '"jax": "1"', '"jax": "2"')
    replace(today / "run" / "timing.csv", "0.5", "0.7")
    (today / "run" / "checkpoints" / "digest.json").unlink()
    assert compare(base, today) == Comparison([], [])


def test_the_last_digit_of_a_cell(both):
    base, today = both
    replace(today / "run" / "metrics.csv", "0.2", "0.20000002")
    assert lines(compare(base, today)) == (["run/metrics.csv column loss, largest relative difference 1e-07"], [])


def test_the_last_bit_of_a_tensor_and_its_sign(both):
    base, today = both
    path = today / "run" / "policy.safetensors"
    tensors = load_file(path)
    tensors["layer/weight"].view(np.uint32)[5] ^= 1
    tensors["layer/bias"].view(np.uint32)[0] ^= 1 << 31  # -0.0
    save_file(tensors, path)
    found = compare(base, today).differences
    assert [str(one) for one in found] == [
        "run/policy.safetensors tensor layer/weight, largest relative difference 1e-07",
        "run/policy.safetensors tensor layer/bias, largest relative difference 0",
    ]
    assert summarise(found) == f"{found[0]}, and 1 more"


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        ("exit_codes.json", '"0"}', '"2"}', "exit_codes.json 0 train"),
        ("evaluate.json", "10.0", "11.0", "evaluate.json returns.0, largest relative difference 0.09"),
        ("evaluate.json", "[[9.0, 10.0]", "[[9.0]", "evaluate.json returns.0"),
        ("run/summary.json", "9.5", "null", "run/summary.json iqm"),
        ("run/config.yaml", "[16, 16]", "[16, 8]", "run/config.yaml network.hidden, largest relative difference 0.5"),
        ("run/config.yaml", "gamma: 0.99", "", "run/config.yaml gamma is missing"),
        ("run/metrics.csv", "0.2", "", "run/metrics.csv column loss"),
        ("run/metrics.csv", "0.2", "nan", "run/metrics.csv column loss, largest relative difference inf"),
    ],
)
def test_other_values(both, name, old, new, line):
    base, today = both
    replace(today / name, old, new)
    assert lines(compare(base, today)) == ([line], [])


def test_rows_files_and_tensors_that_only_one_has(both):
    base, today = both
    with (today / "run" / "metrics.csv").open("a") as file:
        file.write("2,,0.3\n")
    (today / "evaluate.json").unlink()
    (today / "run" / "timing.csv").unlink()
    path = today / "run" / "policy.safetensors"
    save_file({**load_file(path), "other": np.zeros(1)}, path)
    assert set(lines(compare(base, today))[0]) == {
        "evaluate.json is missing",
        "run/timing.csv is missing",
        "run/metrics.csv column seed_index",
        "run/metrics.csv column episode_return",
        "run/metrics.csv column loss",
        "run/policy.safetensors tensor other is new",
    }


def test_what_later_revisions_write_in_addition_is_noted(both):
    base, today = both
    (today / "run" / "metrics.csv").write_text("seed_index,episode_return,loss,more\n0,,0.1,1\n1,,0.2,1\n")
    (today / "run" / "report.html").write_text("")
    replace(today / "run" / "config.yaml", "gamma: 0.99", "gamma: 0.99\nextra: 1")
    assert lines(compare(base, today)) == (
        [],
        ["run/report.html", "run/config.yaml extra", "run/metrics.csv column more"],
    )


def test_a_case_fails_if_a_value_differs_that_is_not_expected(monkeypatch, capsys):
    loss, other = Difference("run/metrics.csv", "column loss", 3e-7), Difference("best.yaml", "gamma")
    assert show("iqn", Outcome([], Comparison([loss, *[other] * 3], ["c"]), 2.0))
    text = "run/metrics.csv column loss, largest relative difference 3e-07; best.yaml gamma, and 2 more (new: c)"
    assert capsys.readouterr().out == f"{'iqn':<24}    2 s  differs: {text}\n"
    for largest, fails in ((1e-7, True), (1e-6, False)):
        monkeypatch.setattr(same_bits, "EXPECTED", [Expected("*.csv", "column loss", largest, "sums run backwards")])
        assert show("iqn", Outcome([], Comparison([loss], ["c"]), 2.0)) == fails
    capsys.readouterr()
    assert show("iqn", Outcome([], Comparison([loss, other], []), 2.0))
    assert capsys.readouterr().out == f"{'iqn':<24}    2 s  differs: best.yaml gamma\n"
    assert not show("iqn", Outcome([], Comparison([loss], ["c"]), 2.0))
    text = "run/metrics.csv column loss, largest relative difference 3e-07 (sums run backwards) (new: c)"
    assert capsys.readouterr().out == f"{'iqn':<24}    2 s  same but for {text}\n"
    assert show("iqn", Outcome([Difference("0 train", "ended with exit code 1")], Comparison([], []), 2.0))
    assert not show("seeds", Outcome([], Comparison([], []), 2.0))


def test_commands_that_end_otherwise_than_they_should(tmp_path):
    case = Case(("script -c 'print(1.5)' > number.json", "script -c 'raise SystemExit(\"a fault\")'"))
    failures = run_commands(case, tmp_path / "run", dict(os.environ))
    assert failures == [Difference("1 script", "ended with exit code 1: a fault")]
    assert json.loads((tmp_path / "run" / "exit_codes.json").read_text()) == {"0 script": "0", "1 script": "1"}
    assert json.loads((tmp_path / "run" / "number.json").read_text()) == 1.5


def test_directories_of_one_revision_that_must_be_equal(both):
    base, today = both
    case = Case((), alike=(("base/run", "today/run"),))
    assert unlike(case, base.parent) == []
    (today / "run" / "config.yaml").write_text("gamma: 0.5\nnetwork: {hidden: [16, 16]}\n")
    (found,) = unlike(case, base.parent)
    assert str(found) == "within today: today/run/config.yaml gamma, largest relative difference 0.5"


def test_a_revision_that_is_not_there_is_reported_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        same_bits.check_out("no-such-revision", tmp_path / "base")
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: revision no-such-revision: ")
