"""Numbers that are not finite: JSON has null in their place, and no command ends because of them."""

import json
from argparse import Namespace

import numpy as np
import pytest

from purejaxdqn.core.types import EpochRow
from purejaxdqn.evaluate import print_returns
from purejaxdqn.runs.metrics import metrics_from_rows
from purejaxdqn.runs.statistics import iqm, iqm_interval
from purejaxdqn.system.files import to_json, write_json
from purejaxdqn.train import main as train
from tests.conftest import TINY

INF = float("inf")


def strict(text):
    """Parse JSON as its standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_json_has_null_in_place_of_what_is_not_finite(tmp_path):
    value = {"a": [1.5, INF, -INF, float("nan")], "b": {"c": (INF, 2, True, None, "inf")}}
    plain = {"a": [1.5, None, None, None], "b": {"c": [None, 2, True, None, "inf"]}}
    assert strict(to_json(value)) == plain
    write_json(tmp_path / "x.json", value)
    assert strict((tmp_path / "x.json").read_text()) == plain


@pytest.mark.parametrize("values", [[INF, INF], [1.0, INF, 2.0], [INF, -INF], [1.0, float("nan")]], ids=repr)
def test_an_interval_with_an_end_that_is_not_finite_is_none(values):
    iqm(np.array(values))  # without a warning
    assert iqm_interval(np.array(values)) is None


def test_the_mean_of_large_returns_is_the_mean(capsys):
    returns = np.full((2, 10), 1e38, np.float32)  # their sum is beyond float32
    rows = EpochRow(**{**dict.fromkeys(EpochRow._fields, np.ones((2, 1))), "eval_returns": returns[:, None]})
    metrics = metrics_from_rows(rows, solved_at=None)
    np.testing.assert_array_equal(metrics.eval_return, np.full((2, 1), 1e38, np.float32))
    print_returns(Namespace(json=True, backend="gymnax", episodes=10), returns)
    assert strict(capsys.readouterr().out)["mean"] == pytest.approx(1e38)


def test_evaluate_prints_json_when_a_return_is_infinite(capsys):
    returns = np.array([[1.0, INF], [1.0, 2.0]], np.float32)
    print_returns(Namespace(json=True, backend="gymnax", episodes=2), returns)
    found = strict(capsys.readouterr().out)
    assert found["returns"] == [[1.0, None], [1.0, 2.0]]
    assert found["mean"] is None


ENVIRONMENT = """
import jax.numpy as jnp
from gymnax.environments.classic_control.cartpole import CartPole

class Infinite(CartPole):
    def step(self, key, state, action, params=None):
        obs, state, _, *rest = super().step(key, state, action, params)
        return obs, state, jnp.where(state.time == 3, jnp.inf, 1.0), *rest
"""


@pytest.mark.slow
def test_a_run_whose_returns_are_infinite_leaves_its_summary(quietly, barely_compiled, tmp_path, monkeypatch):
    (tmp_path / "infinite_rewards.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--quiet", "num_seeds=2", "env.id=infinite_rewards:Infinite", *TINY]
    code, out, err = quietly(train, "--config", "cartpole_cleanrl", "--out", tmp_path / "out", *options)
    assert (code, len(err)) == (3, 4), err
    assert out[1] == "greedy return over 4 episodes: not finite"
    summary = strict((tmp_path / "out" / "summary.json").read_text())
    assert (summary["final_eval_return"], summary["iqm"], summary["iqm_ci95"]) == ([None, None], None, None)
    code, *_ = quietly(train, "--resume", tmp_path / "out")
    assert code == 3
