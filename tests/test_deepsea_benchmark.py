"""The benchmark of DeepSea: its rows are bsuite's protocol, gymnax's DeepSea is bsuite's, and sums are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import deepsea
from purejaxdqn import load_config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.environments.registry import make_environment, underlying_environment


@pytest.mark.parametrize("row", [deepsea.Row(agent, size, 0) for agent in deepsea.AGENTS for size in (10, 20, 50)])
def test_a_row_has_ten_thousand_episodes_and_looks_every_fifty(row):
    config = load_config(deepsea.AGENTS[row.agent], deepsea.overrides_of(row, deepsea.EPISODES))
    plan = make_plan(config)
    assert config.total_timesteps == 10_000 * row.size
    assert plan.periods * plan.iterations * plan.rollout * plan.num_envs == deepsea.CHECK * row.size
    assert dict(config.env.kwargs) == {"size": row.size}
    assert (config.ensemble.members > 1) == (row.agent == "ensemble")
    assert config.network.noisy == (row.agent == "noisy")


def test_the_rows_are_the_protocols():
    rows = deepsea.rows_of(deepsea.AGENTS)
    sizes = [row.size for row in rows if row[::2] == ("ensemble", 0)]
    assert sizes == list(range(10, 51, 2)) and len(sizes) == 21
    for size, seeds in ((20, 30), (30, 10), (12, 1)):
        assert [row.seed for row in rows if row[:2] == ("ensemble", size)] == list(range(seeds))
    assert len(rows) == len(set(rows)) == 21 + 29 + 9 + 2 * 6


SIZE = 6


def test_gymnaxs_deepsea_is_bsuites():
    """A loop of bsuite's rules (Osband et al. 2020), with random actions: places, rewards, ends and bad episodes."""
    env, mapping = make_environment("DeepSea-bsuite", {"size": SIZE}), None
    mapping = np.asarray(underlying_environment("DeepSea-bsuite", {"size": SIZE}).action_mapping)
    assert 0 < mapping.mean() < 1  # what an action means depends on the place
    keys = jax.random.split(jax.random.key(0), 200)
    step, bad = jax.jit(lambda *arguments: env.step(env.default_params, *arguments)), 0
    obs, state = env.reset(env.default_params, keys[:1])
    rng, row, column, wrong = np.random.default_rng(1), 0, 0, False
    for t, key in enumerate(keys):
        right_way = rng.random() < 0.9
        action = mapping[row, column] if right_way else 1 - mapping[row, column]
        seen = np.zeros((SIZE, SIZE))
        seen[row, column] = 1
        np.testing.assert_array_equal(obs[0], seen)
        obs, state, taken = step(key[None], state, obs, jnp.array([action], jnp.int32))
        reward = float(right_way and column == SIZE - 1) - 0.01 / SIZE * right_way
        np.testing.assert_allclose(taken.reward[0], reward, rtol=1e-6)
        wrong |= not right_way and row == column
        column = min(column + 1, SIZE - 1) if right_way else max(column - 1, 0)
        row += 1
        assert bool(taken.terminated[0]) == (row == SIZE)
        if row == SIZE:
            bad += wrong
            row, column, wrong = 0, 0, False
            assert not taken.next_obs[0].any()
        assert int(state.total_bad_episodes[0]) == bad, t
    assert 0 < bad < len(keys) // SIZE


def line(agent, size, seed, solved):
    return {"agent": agent, "size": str(size), "seed": str(seed), "solved (90%)": str(solved), "solved (80%)": ""}


def test_the_table_and_the_fit_are_of_the_rows():
    lines = [line("ensemble", size, 0, int(3 * size**1.5)) for size in range(10, 51, 2)]
    lines += [line("ensemble", 20, 1, ""), line("dqn", 10, 0, 900)]
    factor, exponent = deepsea.fit(lines, "ensemble")
    assert exponent == pytest.approx(1.5, abs=0.01) and factor == pytest.approx(3, rel=0.03)
    assert deepsea.fit(lines, "dqn") is None
    (fitted,) = deepsea.fitted_powers(lines)
    assert fitted == {"agent": "ensemble", "factor": f"{factor:.3g}", "exponent": f"{exponent:.2f}"}
    lines.sort(key=lambda one: (list(deepsea.AGENTS).index(one["agent"]), int(one["size"])))
    table = {(row["agent"], row["size"]): row for row in deepsea.summarise(lines)}
    assert (table["ensemble", 20]["seeds"], table["ensemble", 20]["solved"]) == (2, 1)
    assert table["dqn", 10]["episodes (median)"] == "900"


@pytest.mark.slow
def test_a_row_of_size_4_is_solved_and_says_when(monkeypatch):
    monkeypatch.setattr("purejaxdqn.configure_cpu", lambda **_: None)
    monkeypatch.setattr("purejaxdqn.system.runtime.use_compilation_cache", lambda: None)
    found = deepsea.train(deepsea.Row("ensemble", 4, 0), 300)
    assert found["bad"] < 0.9 and 50 < found["solved (90%)"] <= found["episodes"] <= 300


def test_zeros_are_not_multiplied():
    row = deepsea.flops_of(20)
    assert row["inputs"] == 400
    assert row["ratio"] > 4
