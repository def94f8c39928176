"""Best possible returns beside hand-worked values, brute force and play in the environments themselves."""

import itertools

import numpy as np
import pytest

from benchmarks import optimal
from benchmarks.optimal import TABLES, Mdp, best_return, best_return_of, mean_and_error, random_returns
from purejaxdqn.environments.registry import underlying_environment


def test_backward_induction_waits_only_while_time_is_left():
    # Action 0 waits, action 1 wins with a half and ends either way; action 0 in state 1 is worth 1 and ends.
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = 1.0
    reward = np.array([[0.0, 0.5], [1.0, 0.0]])
    for horizon, best in ((0, 0.0), (1, 0.5), (2, 1.0)):
        assert best_return(Mdp(transition, reward, np.array([1.0, 0.0]), horizon)) == best


@pytest.mark.parametrize(
    ("env_id", "best"), [("Catch-bsuite", 1.0), ("DiscountingChain-bsuite", 1.1), ("UmbrellaChain-bsuite", 1.0)]
)
def test_small_environments_have_the_best_return_that_their_rules_say(env_id, best):
    assert best_return_of(env_id) == pytest.approx(best)


def test_frozen_lakes_best_policy_succeeds_in_three_of_four_episodes_and_always_without_slips():
    assert best_return_of("FrozenLake-misc") == pytest.approx(0.74, abs=0.005)
    assert best_return_of("FrozenLake-misc", is_slippery=False) == 1.0


def test_deep_seas_table_agrees_with_every_sequence_of_actions_played_in_it():
    env = underlying_environment("DeepSea-bsuite", {"size": 3})
    best = -np.inf
    for rights in itertools.product((0, 1), repeat=3):
        row, column, total = 0, 0, 0.0
        for right in rights:
            total += (column == 2 and right) - right * 0.01 / 3
            row, column = row + 1, min(max(column + (1 if right else -1), 0), 2)
        best = max(best, total)
    assert best_return_of("DeepSea-bsuite", size=3) == pytest.approx(best)
    assert best == pytest.approx(1 - env.default_params.unscaled_move_cost)


@pytest.mark.parametrize("env_id", ["FrozenLake-misc", "Catch-bsuite", "UmbrellaChain-bsuite", "DeepSea-bsuite"])
def test_the_tables_give_a_random_policy_the_return_that_it_has_in_the_environment(env_id):
    env = underlying_environment(env_id, {})
    mdp = TABLES[env_id](env, env.default_params)
    value = np.zeros(len(mdp.start))
    for _ in range(mdp.horizon):
        value = (mdp.reward + mdp.transition @ value).mean(-1)
    mean, error = mean_and_error(random_returns(env_id, episodes=2_000))
    assert abs(mean - mdp.start @ value) < 5 * error


def test_random_play_in_a_row_without_the_mask_takes_all_actions(monkeypatch):
    def returns(env_id, *, episodes, legal_only, **kwargs):
        return np.array([1.0, 3.0]) if legal_only else np.array([0.0, 1.0])

    monkeypatch.setattr("purejaxdqn.environments.importing.is_installed", lambda suite: True)
    monkeypatch.setattr(optimal, "random_legal_returns", returns)
    rows = optimal.play_suites(["pgx/2048", "pgx/2048_illegal"], 2)
    assert [(row["row"], row["random"]) for row in rows] == [("pgx/2048", 2.0), ("pgx/2048_illegal", 0.5)]


def test_four_rooms_goal_is_reached_by_the_best_policy_and_rows_are_probabilities():
    env = underlying_environment("FourRooms-misc", {})
    mdp = TABLES["FourRooms-misc"](env, env.default_params)
    inside = mdp.transition.sum(-1) + mdp.reward
    assert np.allclose(inside[np.asarray(env.env_map).ravel()], 1.0)
    assert best_return(mdp) == pytest.approx(1.0, abs=1e-3)
    assert best_return(mdp._replace(horizon=5)) == 0.0  # the goal is further away than five steps
