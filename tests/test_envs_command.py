"""The command that lists the environments."""

import json
import subprocess
import sys
import time
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


def test_all_discrete_environments_are_listed_with_what_they_show_and_take(listed):
    by_id = {row["id"]: row for row in listed[0]}
    assert len(by_id) == len(listed[0]) == 22
    assert by_id["CartPole-v1"] == {
        "id": "CartPole-v1",
        "observation_shape": [4],
        "observation_dtype": "float32",
        "actions": 2,
        "time_limit": 500,
        "solved_at": 475.0,
    }
    assert by_id["Breakout-MinAtar"]["observation_dtype"] == "bool"
    assert by_id["Breakout-MinAtar"]["observation_shape"] == [10, 10, 4]
    assert by_id["Breakout-MinAtar"]["solved_at"] is None
    assert by_id["FrozenLake-misc"]["observation_shape"] == []
    assert [by_id[name]["time_limit"] for name in ("DeepSea-bsuite", "BernoulliBandit-misc")] == [8, 100]


def test_the_list_is_there_in_seconds(listed):
    assert listed[1] < 30  # about 2 on an idle machine


def test_the_table_says_the_same_in_aligned_columns(listed, capsys):
    assert main([]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(listed[0])
    ends = [heads.index(word) for word in ("observation", "type", "actions", "time limit", "solved")]
    for row, line in zip(listed[0], lines, strict=True):
        cells = [line[start:stop].strip() for start, stop in zip([0, *ends], [*ends, None], strict=True)]
        assert all(line[end - 1] == " " for end in ends)
        shape = " x ".join(map(str, row["observation_shape"])) or "single"
        solved = "-" if row["solved_at"] is None else f"{row['solved_at']:g}"
        numbers = [str(row["actions"]), str(row["time_limit"])]
        assert cells == [row["id"], shape, row["observation_dtype"], *numbers, solved]


def test_what_is_listed_is_what_a_program_is_given(listed):
    for row in listed[0]:
        env = make_environment(row["id"])
        assert (list(env.obs_shape), str(env.obs_dtype), env.num_actions) == (
            row["observation_shape"],
            row["observation_dtype"],
            row["actions"],
        )
