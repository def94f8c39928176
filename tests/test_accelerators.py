"""What is counted of runs that are compiled for a TPU or a GPU, and (slow) such runs of a TPU v5e.

The compiler for a TPU comes with libtpu, and needs no TPU. It runs in a process of its own, as JAX here has started.
"""

import pytest

from benchmarks import accelerators, harness
from benchmarks.accelerators import Case, flops_of_iteration, read_config, summarise
from benchmarks.devices import ACCELERATORS, missing

V5E, ROOM = "TPU v5e", 1.4
"""Memory of a seed over the sum that it must keep, at most: vectors of 400 numbers are padded to 512."""
FOUND = {"seconds": 4.0, "memory": 2.0, "sum": 1.0, "problem": "", "MB an iteration": 3.0, "jax": "0"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    monkeypatch.setattr("benchmarks.harness.PICTURES", {})
    monkeypatch.setattr(accelerators, "missing", lambda device: "")
    return tmp_path


def counting(monkeypatch, *options, stops_after=None):
    """Call the script; the cases that were compiled."""
    asked = []

    def ask(case):
        if len(asked) == stops_after:
            raise KeyboardInterrupt
        asked.append(case)
        return {"seconds": 5.0} if case.device == "CPU" else dict(FOUND)

    monkeypatch.setattr(accelerators, "_ask", ask)
    monkeypatch.setattr("sys.argv", ["accelerators", *options])
    try:
        accelerators.main()
    except KeyboardInterrupt:
        assert stops_after is not None
    return asked


def test_a_second_call_continues_where_the_first_was_stopped(results, monkeypatch):
    options = ("--only", V5E, "H100", "--configs", "cartpole_cleanrl", "--seeds", "1", "8")
    first = counting(monkeypatch, *options, stops_after=3)
    assert [case.device for case in first] == ["CPU", V5E, "H100"]  # one compilation for this machine a config
    assert list(accelerators.stored()) == [Case(V5E, "cartpole_cleanrl", 1), Case("H100", "cartpole_cleanrl", 1)]
    assert counting(monkeypatch, *options) == [Case(V5E, "cartpole_cleanrl", 8), Case("H100", "cartpole_cleanrl", 8)]
    assert counting(monkeypatch, *options) == []
    assert len(counting(monkeypatch, *options, "--again")) == 4
    rows = accelerators.stored()
    assert len(rows) == 4
    assert {row["on a CPU (s)"] for case, row in rows.items() if case.seeds == 1} == {"5.0"}
    assert float(rows[first[1]]["memory / sum"]) == 2.0


def test_quick_keeps_nothing_and_a_device_without_its_compiler_is_left_out(results, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "missing", lambda device: "libtpu is not installed" if device == V5E else "")
    asked = counting(monkeypatch, "--quick")
    assert {case.device for case in asked} == {"CPU", *ACCELERATORS} - {V5E}
    assert list(results.iterdir()) == []
    assert capsys.readouterr().err == f"{V5E} is left out: libtpu is not installed\n"


def test_a_row_that_does_not_compile_says_why_and_counts_as_none(results, monkeypatch):
    monkeypatch.setattr(accelerators, "_ask", lambda case: {"problem": "no memory", "seconds": 1.0})
    monkeypatch.setattr("sys.argv", ["accelerators", "--only", V5E, "--configs", "catch", "--seeds", "2"])
    accelerators.main()
    (row,) = accelerators.stored().values()
    assert (row["one program"], row["memory a seed (MB)"], row["memory / sum"]) == ("no memory", "", "")
    assert summarise(accelerators.stored())[0]["whole runs compiled for it"] == "0 of 1"


def test_the_flops_of_an_iteration_are_those_of_its_products(config, program):
    layers = ((4, 16), (16, 16), (16, 2))
    weights = sum(inputs * outputs for inputs, outputs in layers)
    acting = 2 * 8 * weights  # eight steps
    update = 2 * 8 * 4 * weights  # two networks forward, and two products of each layer back
    assert flops_of_iteration(config, program) == acting + 2 * update


@pytest.fixture(scope="module")
def counted():
    """Count a row for a TPU v5e, each once."""
    if reason := missing(V5E):
        pytest.skip(f"{reason}: nothing is compiled for a TPU")
    rows = {}

    def count(configs, seeds):
        if (configs, seeds) not in rows:
            case = {"device": V5E, "config": configs, "seeds": seeds}
            rows[configs, seeds] = harness.answer(harness.start("benchmarks.accelerators", case), timeout=900)
        return rows[configs, seeds]

    return count


@pytest.mark.slow
@pytest.mark.parametrize(("configs", "seeds"), [("cartpole_cleanrl", 8), ("minatar/breakout", 8)])
def test_a_whole_run_for_a_tpu_is_one_program_without_the_host_and_without_branches(counted, configs, seeds):
    found = counted(configs, seeds)
    assert found["problem"] == ""
    assert found["seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configs", "seeds"),
    [("minatar/breakout", 1), ("minatar/breakout", 8), ("minatar/breakout+per", 1), ("minatar/breakout+n_step", 1)],
)
def test_replay_of_pictures_stands_once_in_a_tpus_memory(counted, configs, seeds):
    found = counted(configs, seeds)
    assert found["memory"] <= ROOM * found["sum"]


def test_configs_of_the_table_can_be_read():
    for configs in (names for names in accelerators.CONFIGS.values()):
        for one in configs:
            assert read_config(one, 1)[0].num_seeds == 1
