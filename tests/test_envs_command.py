"""The command that lists the environments."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from purejaxdqn.environments.registry import make_environment
from purejaxdqn.envs import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def listed():
    """What ``purejaxdqn envs --json`` prints, and how long it takes, as a user runs it."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "purejaxdqn", "envs", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout), time.perf_counter() - start


def test_all_environments_are_listed_with_what_they_show_and_take(listed):
    by_id = {row["id"]: row for row in listed[0]}
    assert len(by_id) == len(listed[0])
    assert Counter(row["suite"] for row in listed[0]) == {
        "gymnax": 20,
        "xminigrid": 23,
        "jumanji": 9,
        "craftax": 4,
        "pgx": 1,
        "octax": 37,
        "sparse": 2,
    }
    assert by_id["CartPole-v1"] == {
        "id": "CartPole-v1",
        "suite": "gymnax",
        "observation_shape": [4],
        "observation_dtype": "float32",
        "actions": 2,
        "illegal_actions": False,
        "time_limit": 500,
        "solved_at": 475.0,
        "installed": True,
        "install": "purejaxdqn",
    }
    assert by_id["Breakout-MinAtar"]["observation_dtype"] == "bool"
    assert by_id["Breakout-MinAtar"]["observation_shape"] == [10, 10, 4]
    assert by_id["Breakout-MinAtar"]["solved_at"] is None
    assert by_id["FrozenLake-misc"]["observation_shape"] == []
    assert [by_id[name]["time_limit"] for name in ("DeepSea-bsuite", "BernoulliBandit-misc")] == [8, 100]
    assert by_id["pgx:2048"]["illegal_actions"] is True
    assert by_id["pgx:2048"]["install"] == "purejaxdqn[pgx]"


def test_listing_imports_no_suite_and_no_jax():
    code = (
        "import sys; from purejaxdqn.envs import main; assert main(['--json']) == 0\n"
        "found = {'jax', 'gymnax', 'xminigrid', 'jumanji', 'craftax', 'pgx', 'octax'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)


def test_the_list_is_there_in_seconds(listed):
    assert listed[1] < 30  # about 2 on an idle machine


def test_the_table_says_the_same_in_aligned_columns(listed, capsys):
    assert main([]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(listed[0])
    words = ("observation", "type", "actions", "illegal", "time limit", "solved", "installed")
    ends = [heads.index(f" {word}") + 1 for word in words]
    for row, line in zip(listed[0], lines, strict=True):
        cells = [line[start:stop].strip() for start, stop in zip([0, *ends], [*ends, None], strict=True)]
        assert all(line[end - 1] == " " for end in ends)
        shape = " x ".join(map(str, row["observation_shape"])) or "single"
        solved, limit = (
            "-" if row[key] is None else str(row[key]).removesuffix(".0") for key in ("solved_at", "time_limit")
        )
        illegal, installed = ("yes" if row[key] else "no" for key in ("illegal_actions", "installed"))
        middle = [row["observation_dtype"], str(row["actions"]), illegal, limit]
        assert cells == [row["id"], shape, *middle, solved, installed]


def test_what_is_listed_is_what_a_program_is_given(listed):
    for row in listed[0]:
        if row["suite"] != "gymnax":
            continue  # see test_suites.py
        env = make_environment(row["id"])
        found = {
            "observation_shape": list(env.obs_shape),
            "observation_dtype": str(env.obs_dtype),
            "actions": env.num_actions,
            "time_limit": env.time_limit,
            "solved_at": env.solved_at,
        }
        assert found == {key: row[key] for key in found}
