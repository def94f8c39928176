"""CartPole's benchmark: the results of one config do not replace those of another."""

from benchmarks import cartpole, harness

SCORES = [{"seed": 2026, "seed_index": k, "gymnax": 500.0, "gymnasium": 499.0 + k} for k in range(2)]


def test_result_files_are_named_by_config():
    names = {config: list(cartpole.tables_of(config, SCORES, [])) for config in ("cartpole_double", "cartpole_pqn")}
    assert not set(names["cartpole_double"]) & set(names["cartpole_pqn"])
    assert all((harness.RESULTS / f"{name}.csv").exists() for name in names["cartpole_double"])
    assert next(iter(cartpole.tables_of("minatar/breakout.yaml", SCORES, []))) == "minatar_breakout_scores"


def test_training_is_timed_apart_from_the_process_that_trains():
    found = {
        name: [cartpole.Seconds(9.0, 2.0), cartpole.Seconds(7.0, 3.0), cartpole.Seconds(8.0, 1.0)] for name in "ab"
    }
    for row, name in zip(cartpole.times_of(found), found, strict=True):
        assert list(row.values()) == [name, 8.0, 7.0, 9.0, 2.0, 3.0]


def test_each_run_is_timed_with_the_programs_that_its_name_says(tmp_path, monkeypatch):
    """The first two share a cache of their round; programs for one core are others, and are compiled before."""
    calls = []

    def command(name, *arguments, env, on_one_core):
        run = arguments[arguments.index("--out") + 1]
        run.mkdir()
        (run / "summary.json").write_text('{"run_seconds": 0.5}', encoding="utf-8")
        calls.append((env["JAX_COMPILATION_CACHE_DIR"], on_one_core))

    monkeypatch.setattr(cartpole, "_command", command)
    rows = cartpole.measure_times(["--config", "cartpole_pqn"], tmp_path, rounds=2)
    caches = [cache for cache, _ in calls]
    assert [one for _, one in calls] == [True, *[False, False, True] * 2]
    assert caches[1] == caches[2] != caches[4] == caches[5]
    assert caches[0] == caches[3] == caches[6] not in caches[1:3]
    assert {row["training, median (s)"] for row in rows} == {0.5}


def test_a_command_on_one_core_may_use_no_other(monkeypatch):
    code = "import os; print(len(os.sched_getaffinity(0)))"
    run = cartpole.subprocess.run
    monkeypatch.setattr(cartpole.subprocess, "run", lambda command, **options: run([command[0], "-c", code], **options))
    assert cartpole._command("train", on_one_core=True) == "1\n"


def test_a_seed_is_at_500_in_both_back_ends_only_if_it_is_in_each():
    counted = {row["played in"]: row["seeds at 500"] for row in cartpole.count(SCORES)}
    assert counted == {"gymnax": "2 of 2", "Gymnasium": "1 of 2", "both": "1 of 2"}
