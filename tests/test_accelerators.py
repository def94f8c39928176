"""What is counted of runs that are compiled for a TPU or a GPU, and (slow) such runs of a TPU v5e.

The compiler for a TPU comes with libtpu, and needs no TPU. It runs in a process of its own, as JAX here has started.
"""

import csv
import signal
import subprocess
import sys
import types

import pytest

from benchmarks import accelerators, compiled, harness, pictures
from benchmarks.accelerator_targets import TARGETS, comparable, judge
from benchmarks.accelerators import BREAKOUT, CARTPOLE, COLUMNS, Case, on_a_cpu, queue, summarise, table_cases
from benchmarks.compiled import flops_of_iteration, read_config
from benchmarks.devices import ACCELERATORS, missing
from benchmarks.guard import PRESETS

V5E, ROOM = "TPU v5e", 1.4
"""Memory of a seed over the sum that it must keep, at most: vectors of 400 numbers are padded to 512."""
FOUND = {"one program": "yes", "compile (s)": 4.0, "memory / sum": 2.0, "MB an iteration": 3.0, "jax": "0"}
ONE = ("--only", V5E, "--configs", "catch", "--seeds", "2")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    monkeypatch.setattr("benchmarks.harness.PICTURES", {})
    monkeypatch.setattr(accelerators, "missing", lambda device: "")
    monkeypatch.setattr(accelerators, "fault_of", lambda config: "")
    monkeypatch.setattr(accelerators, "TEXTS", tmp_path / "texts")
    monkeypatch.setattr(compiled, "version_of", lambda device: "0")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return tmp_path


def counting(monkeypatch, *options, stops_after=None, answers=()):
    """Call the script; the cases that were compiled. An answer is what a worker found; the others found ``FOUND``."""
    asked = []

    def ask(task, minutes):
        if len(asked) == stops_after:
            raise KeyboardInterrupt
        asked.append(Case(*(task[name] for name in Case._fields)))
        return dict(FOUND) if len(asked) > len(answers) else answers[len(asked) - 1]

    monkeypatch.setattr(accelerators, "_ask", ask)
    monkeypatch.setattr("sys.argv", ["accelerators", *options])
    try:
        accelerators.main()
    except KeyboardInterrupt:
        assert stops_after is not None
    return asked


def read(name):
    with (harness.RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_text(rows):
    return [{column: str(cell) for column, cell in row.items()} for row in rows]


def test_a_second_call_continues_where_the_first_was_stopped(results, monkeypatch):
    options = ("--only", V5E, "H100", "--configs", CARTPOLE, "--seeds", "1", "8")
    first = counting(monkeypatch, *options, stops_after=2)
    assert first == [Case(V5E, CARTPOLE, 1), Case("H100", CARTPOLE, 1)] == list(accelerators.stored())
    assert counting(monkeypatch, *options) == [Case(V5E, CARTPOLE, 8), Case("H100", CARTPOLE, 8)]
    assert counting(monkeypatch, *options) == []
    assert len(counting(monkeypatch, *options, "--again")) == 4
    rows = accelerators.stored()
    assert len(rows) == 4
    assert (rows[first[1]]["memory / sum"], rows[first[1]]["commit"]) == ("2.0", "abc")


def test_the_tables_of_devices_and_targets_are_written_after_every_row(results, monkeypatch):
    options = ("--only", V5E, "H100", "--configs", CARTPOLE, "--seeds", "1")
    counting(monkeypatch, *options, stops_after=1)
    assert read(accelerators.SUMMARY) == as_text(summarise(accelerators.stored()))
    assert read(accelerators.SUMMARY)[0]["whole runs compiled for it"] == "1 of 1"
    assert read(accelerators.TARGETS) == as_text(judge(accelerators.stored()))


def test_the_stored_tables_of_devices_and_targets_are_those_of_the_stored_rows():
    rows = accelerators.stored()
    for name, expected in ((accelerators.SUMMARY, summarise(rows)), (accelerators.TARGETS, judge(rows))):
        assert read(name) == as_text(expected), "python -m benchmarks.accelerators --summary"


def test_quick_keeps_nothing_and_a_device_without_its_compiler_is_left_out(results, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "missing", lambda device: "libtpu is not installed" if device == V5E else "")
    asked = counting(monkeypatch, "--quick")
    assert [case.device for case in asked] == [device for device in ACCELERATORS if device != V5E]
    assert list(results.iterdir()) == []
    assert capsys.readouterr().err == f"{V5E} is left out: libtpu is not installed\n"


def test_a_row_that_does_not_compile_says_why_and_counts_as_none(results, monkeypatch):
    counting(monkeypatch, *ONE, answers=[{"one program": "no memory"}])
    (row,) = accelerators.stored().values()
    assert (row["one program"], row["memory a seed (MB)"], row["memory / sum"]) == ("no memory", "", "")
    assert summarise(accelerators.stored())[0]["whole runs compiled for it"] == "0 of 1"
    assert counting(monkeypatch, *ONE) == []


@pytest.mark.parametrize(
    ("note", "tried_again"),
    [("stopped after 15 minutes", True), ("killed by signal 9", True), ("the worker failed with exit code 1", False)],
)
def test_a_row_that_was_stopped_or_killed_is_tried_again_and_the_rows_after_it_are_counted(
    note, tried_again, results, monkeypatch
):
    options = ("--only", V5E, "--configs", "catch", "--seeds", "2", "3")
    assert len(counting(monkeypatch, *options, answers=[{"note": note}])) == 2
    rows = accelerators.stored()
    assert [row["note"] for row in rows.values()] == [note, ""]
    assert summarise(rows)[0]["whole runs compiled for it"] == "1 of 2"
    assert counting(monkeypatch, *options) == [Case(V5E, "catch", 2)] * tried_again
    assert [row["note"] for row in accelerators.stored().values()] == ["" if tried_again else note, ""]


def test_a_row_that_was_counted_stays_if_counting_it_again_is_stopped(results, monkeypatch):
    counting(monkeypatch, *ONE)
    before = accelerators.stored()
    for _ in range(2):
        counting(monkeypatch, *ONE, "--again", answers=[{"note": "stopped after 15 minutes"}])
        (row,) = accelerators.stored().values()
        assert row == {**next(iter(before.values())), "note": "counted again: stopped after 15 minutes"}
    assert counting(monkeypatch, *ONE) == []


def test_missing_rows_are_counted_first_and_what_was_stopped_last(monkeypatch):
    monkeypatch.setattr(compiled, "version_of", lambda device: "2")
    last = Case("H200", f"{CARTPOLE}+iqn", 64)
    cases = [last, *(Case(V5E, CARTPOLE, seeds) for seeds in range(1, 8))]
    notes = (
        "stopped after 15 minutes of processor time",
        "killed by signal 9",
        "counted again: stopped after 2 minutes",
    )
    rows = {
        cases[1]: _row(note=notes[0]),
        cases[2]: _row(note=notes[1]),
        cases[3]: _row(jax="1", machine="m", note=notes[2]),
        cases[4]: _row(jax="1", machine="m"),
        cases[5]: _row(jax="2"),
        cases[6]: _row(jax="2", machine="m"),
    }
    assert queue(cases, rows, again=False) == [cases[7], cases[4], cases[5], last, *cases[1:4]]
    assert queue(cases, rows, again=True) == [cases[7], *cases[4:7], last, *cases[1:4]]


def test_a_run_of_one_seed_is_compiled_for_the_cpu_once_for_all_devices(results, monkeypatch):
    monkeypatch.setattr(compiled, "version_of", lambda device: "2, libtpu 3" if device == V5E else "2")
    times = {"on a CPU (s)": "", "on a CPU (CPU s)": "5.0"}
    rows = {Case(V5E, CARTPOLE, 1): _row(jax="2, libtpu 3", machine="m", **times)}
    assert on_a_cpu(rows, Case("H100", CARTPOLE, 1), "m") == {"on a CPU (s)": "", "on a CPU (CPU s)": 5.0}
    for case, machine in (
        (Case("H100", CARTPOLE, 8), "m"),
        (Case("H100", BREAKOUT, 1), "m"),
        (Case("H100", CARTPOLE, 1), "n"),
    ):
        assert on_a_cpu(rows, case, machine) is None
    monkeypatch.setattr(compiled, "version_of", lambda device: "2.1")
    assert on_a_cpu(rows, Case("H100", CARTPOLE, 1), "m") is None


def test_kept_texts_are_counted_again_without_compiling(results, monkeypatch):
    case = {"device": V5E, "config": "catch+n_step", "seeds": 2}
    memory = types.SimpleNamespace(temp_size_in_bytes=7, generated_code_size_in_bytes=3, serialized=b"")
    compiled.keep(compiled.path_in(results / "kept", **case), "HloModule é", memory, {"jax": "1", "compile (s)": 4.0})

    def columns(text, memory, device, config, program):
        assert (text, memory.temp_size_in_bytes, device, config.num_seeds) == ("HloModule é", 7, V5E, 2)
        return {"kernels": 5, "memory / sum": 1.5}

    monkeypatch.setattr(compiled, "_columns", columns)
    counting(monkeypatch, "--only", V5E, "--configs", "catch+n_step", "catch", "--seeds", "2")
    before = accelerators.stored()
    assert counting(monkeypatch, "--recount", "--texts", str(results / "kept")) == []
    rows = accelerators.stored()
    assert rows[Case(V5E, "catch", 2)] == before[Case(V5E, "catch", 2)]
    row = rows[Case(**case)]
    assert [row[name] for name in ("jax", "compile (s)", "kernels", "memory / sum", "MB an iteration", "commit")] == [
        *("1", "4.0", "5", "1.5", "", "abc")
    ]
    assert compiled.count_kept(**{**case, "seeds": 3}, texts=results / "kept") is None


def test_without_kept_texts_nothing_is_written(results, monkeypatch):
    (results / "empty").mkdir()
    (results / "file").write_text("")
    for options in (
        ["--recount", "--texts", str(results / "empty")],
        ["--recount", "--texts", str(results / "none")],
        ["--texts", str(results / "file")],
    ):
        with pytest.raises(SystemExit) as caught:
            counting(monkeypatch, *options)
        assert caught.value.code == 2
    assert {path.name for path in results.iterdir()} == {"empty", "file"}


def test_the_limit_of_a_row_is_processor_time():
    code = "from benchmarks.accelerators import _limit_processor_time as limit\nlimit(1 / 60)\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    ("error", "code", "note"),
    [
        (subprocess.TimeoutExpired("worker", 1), None, "stopped after 20 minutes"),
        (SystemExit("a worker failed"), -signal.SIGXCPU, "stopped after 2 minutes of processor time"),
        (SystemExit("a worker failed"), -9, "killed by signal 9"),
        (SystemExit("a worker failed"), 1, "the worker failed with exit code 1"),
    ],
)
def test_what_happened_to_a_worker_is_noted(error, code, note, monkeypatch):
    def answer(process, timeout):
        assert timeout == 1_200
        raise error

    monkeypatch.setattr(harness, "start", lambda module, task: types.SimpleNamespace(returncode=code))
    monkeypatch.setattr(harness, "answer", answer)
    assert accelerators._ask({"device": V5E, "config": "catch", "seeds": 1}, 2) == {"note": note}


def test_an_error_in_a_worker_is_noted_in_one_line(monkeypatch, capsys):
    def count(**task):
        raise ValueError("copy.1: the cost of a call is unknown\nand more")

    monkeypatch.setattr(compiled, "count", count)
    assert accelerators._work({}) == {"note": "ValueError: copy.1: the cost of a call is unknown"}
    assert "Traceback" in capsys.readouterr().err


def test_an_iteration_that_cannot_be_counted_leaves_its_cells_empty(program):
    found = compiled._traffic("", program.plan, 1, V5E)
    assert list(found) == ["note"] and found["note"].startswith("bytes not counted: 0 loops run")


def test_seconds_of_the_wall_clock_are_kept_only_if_the_compiler_did_not_wait(monkeypatch):
    monkeypatch.setattr("purejaxdqn.system.compiling.compile_lowered", lambda lowered, platform: lowered)

    def seconds(wall, used):
        monkeypatch.setattr(compiled.time, "perf_counter", iter((0.0, wall)).__next__)
        monkeypatch.setattr(compiled.os, "times", iter(((0.0,) * 5, (used, 0.0, 0.0, 0.0, wall))).__next__)
        return compiled.timed("program", "tpu")

    assert seconds(10.0, 9.5) == ("program", 10.0, 9.5)
    assert seconds(10.0, 4.0) == ("program", "", 4.0)


def test_a_config_that_cannot_be_read_ends_the_script_before_anything_is_counted(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["accelerators", "--configs", "catch+gamma=2"])
    with pytest.raises(SystemExit, match="2"):
        accelerators.main()
    assert capsys.readouterr().err.startswith("error: gamma: ")


def test_the_table_names_what_it_must():
    cases = table_cases()
    assert len(set(cases)) == len(cases)
    assert set(COLUMNS) >= {*FOUND, *Case._fields, *compiled.ON_A_CPU, "machine"}
    cartpole = (CARTPOLE, accelerators.PQN, *(f"{CARTPOLE}+{preset}" for preset in PRESETS if preset != "dqn"))
    pictures = (BREAKOUT, accelerators.PQN_PICTURES)
    promised = {
        Case(device, config, seeds)
        for configs, numbers in ((cartpole, (1, 64, 1_024)), (pictures, (1, 8, 30)))
        for device in ACCELERATORS
        for config in configs
        for seeds in numbers
    }
    assert len(promised) == 4 * 3 * (17 + 2)
    promised |= {Case(device, f"{BREAKOUT}+{part}", 8) for device in (V5E, "H100") for part in ("per", "n_step=1")}
    promised |= {
        Case(device, f"{BREAKOUT}+{part}", seeds)
        for device in (V5E, "TPU v6e")
        for part in ("per", "n_step=1")
        for seeds in (1, 8, 30)
    }
    assert promised <= set(cases)


def test_no_two_configs_of_the_table_are_one_program():
    """Breakout has three-step returns without the preset `n_step`."""
    names = list(dict.fromkeys(case.config for case in table_cases()))
    configs = [compiled.read_config(name, 1)[0] for name in names]
    assert [name for name, one in zip(names, configs, strict=True) if configs.count(one) > 1] == []


def _row(**cells):
    return dict.fromkeys(COLUMNS, "") | cells


def test_a_target_is_met_if_the_worst_row_meets_it():
    here = {"jax": "1, libtpu 2", "machine": "m"}
    rows = {
        Case(V5E, BREAKOUT, 8): _row(**{"memory / sum": "1.3"}),
        Case("TPU v6e", BREAKOUT, 30): _row(**{"memory / sum": "1.35"}),
        Case("H100", BREAKOUT, 30): _row(**{"memory / sum": "9"}),
        Case("H100", CARTPOLE, 1_024): _row(**here, **{"MB an iteration": str(1.4 * 1_024), "compile (CPU s)": "16"}),
        Case("H100", CARTPOLE, 1): _row(
            **here, **{"compile (CPU s)": "10", "on a CPU (CPU s)": "5", "compile (s)": "99"}
        ),
        Case("H100", CARTPOLE, 64): _row(jax="2", machine="m", **{"compile (CPU s)": "99"}),
        Case(V5E, CARTPOLE, 1): _row(**here, **{"compile (s)": "10", "compile (CPU s)": "3"}),
        Case(V5E, CARTPOLE, 64): _row(**here, **{"compile (s)": "15"}),
    }
    found = {row["target"]: (row["highest"], row["of"], row["rows counted"], row["met"]) for row in judge(rows)}
    assert list(found.values()) == [
        (1.35, "TPU v6e, minatar/breakout, 30 seeds", 2, "yes"),
        ("", "", 0, "not counted"),
        (pytest.approx(1.4), "H100, cartpole_cleanrl, 1,024 seeds", 1, "no"),
        ("", "", 0, "not counted"),
        ("", "", 0, "not counted"),
        (2.0, "H100, cartpole_cleanrl, 1 seed", 1, "yes"),
        (1.5, "TPU v5e, cartpole_cleanrl, 64 seeds", 1, "yes"),
        (1.6, "H100, cartpole_cleanrl, 1,024 seeds", 1, "no"),
    ]
    assert len(found) == len(TARGETS)


@pytest.mark.parametrize(
    ("about", "number"),
    [
        ({"jax": "1, libtpu 2", "machine": "n"}, 0),
        ({"jax": "1, libtpu 3", "machine": "m"}, 0),
        ({"jax": "1, libtpu 2", "machine": "m"}, 1),
    ],
)
def test_times_of_other_versions_and_machines_are_not_compared(about, number):
    rows = {
        Case(V5E, CARTPOLE, 1): _row(jax="1, libtpu 2", machine="m", **{"compile (CPU s)": "3"}),
        Case(V5E, CARTPOLE, 64): _row(**about, **{"compile (CPU s)": "6"}),
    }
    (row,) = (one for one in judge(rows) if one["target"] == "TPU: compile time / that of one seed")
    assert (row["rows counted"], row["rows not comparable"]) == (number, 1 - number)
    assert row["met"] == ("no" if number else "no rows of one version and machine")


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_rows_of_unknown_machines_or_compilers_are_not_compared(platform):
    for jax, machine, same in (("1", "m", platform == "gpu"), ("1, libtpu 2", "m", True), ("1, libtpu 2", "", False)):
        row = _row(jax=jax, machine=machine)
        assert comparable(platform, row, dict(row)) == same


def test_what_was_tried_is_compared_with_what_is_shipped(monkeypatch):
    counted = []

    def count_one(device, devices, config, seeds, variant):
        counted.append((config, seeds, variant))
        return {"kernels": 40 + len(counted), "memory a seed (MB)": 10.0 * len(counted)}

    monkeypatch.setattr(compiled, "described", lambda device: [])
    monkeypatch.setattr(compiled, "_count_one", count_one)
    found = compiled.count_variant(device="H100", config=CARTPOLE, seeds=8, variant="flattened")
    memory = {"memory a seed (MB)": 10.0, "memory a seed (MB), with it": 20.0}
    assert found == {"kernels": 41, "kernels, with it": 42, **memory}
    assert counted == [(CARTPOLE, 8, ""), (CARTPOLE, 8, "flattened")]


def test_variants_that_fail_or_have_no_compiler_are_left_out(results, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "missing", lambda device: "no libtpu" if device == V5E else "")
    monkeypatch.setattr(
        accelerators, "_ask", lambda task, minutes: {"note": "killed"} if task["seeds"] == 30 else {"kernels": 3}
    )
    monkeypatch.setattr("sys.argv", ["accelerators", "--tried"])
    accelerators.main()
    rows = read(accelerators.TRIED)
    assert [(row["what was tried"], row["seeds"]) for row in rows] == [
        ("Adam on one flattened vector", "1024"),
        ("products that share a matrix merged", "1024"),
        ("values of a rollout at once", "1024"),
        ("values of a rollout at once", "8"),
        ("precision=default", "1024"),
        ("precision=high", "1024"),
        ("no on-chip memory", "1"),
    ]
    assert "H100, minatar/breakout is left out: killed" in capsys.readouterr().err


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
@pytest.mark.parametrize(("configs", "seeds"), [("cartpole_cleanrl", 8), ("cartpole_pqn", 8), ("minatar/breakout", 8)])
def test_a_whole_run_for_a_tpu_is_one_program_without_the_host_and_without_branches(counted, configs, seeds):
    found = counted(configs, seeds)
    assert (found["one program"], found.get("note", "")) == ("yes", "")
    assert found["compile (CPU s)"] > 0
    assert found["MB an iteration"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configs", "seeds"), [(BREAKOUT, 1), (BREAKOUT, 8), *((one, 8) for one in accelerators.BREAKOUT_PARTS)]
)
def test_replay_of_pictures_stands_once_in_a_tpus_memory(counted, configs, seeds):
    found = counted(configs, seeds)
    assert found["memory a seed (MB)"] <= ROOM * found["sum (MB)"]


@pytest.mark.parametrize("config", dict.fromkeys(case.config for case in table_cases()))
def test_configs_of_the_table_can_be_read(config):
    draft, program = read_config(config, 1)
    assert draft.num_seeds == 1
    # Otherwise the loop of an iteration would be that of an epoch, with an evaluation in it.
    assert program.plan.periods * program.plan.iterations > 1


def test_the_picture_has_a_panel_a_device_and_a_point_a_row(monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, name: figures.append(figure))
    cases = [(V5E, CARTPOLE, "1"), (V5E, CARTPOLE, "64"), (V5E, BREAKOUT, "1"), ("H100", BREAKOUT, "64")]
    rows = [
        {"device": device, "config": config, "seeds": int(seeds) if nth % 2 else seeds, "memory / sum": 1.0 + nth}
        for nth, (device, config, seeds) in enumerate(cases)
    ]
    pictures.draw("accelerators", rows)
    (figure,) = figures
    points = {
        axes.get_title(): sorted(
            (line.get_label(), float(x), int(y))
            for line in axes.get_lines()
            if line.get_label()[0] != "_"
            for x, y in zip(*line.get_data(), strict=True)
        )
        for axes in figure.axes
    }
    assert points == {
        V5E: [("1 seed", 1.0, 0), ("1 seed", 3.0, 1), ("64 seeds", 2.0, 0)],
        "H100": [("64 seeds", 4.0, 1)],
    }
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [CARTPOLE, BREAKOUT]
