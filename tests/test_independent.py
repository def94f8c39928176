"""Independent agents beside ours: the score is of the last 100 episodes, and the comparison is of ours with each."""

import jax.numpy as jnp
import pytest

from benchmarks import independent


def test_the_plain_scans_score_is_the_mean_of_the_last_hundred_episodes(monkeypatch):
    """Two environments; at every third step both end an episode, whose return is the step's number."""
    steps = jnp.arange(300)
    ended = jnp.where(steps % 3 == 0, steps, jnp.nan)[:, None].repeat(2, 1)
    monkeypatch.setattr("benchmarks.baselines.scan_dqn.make_train", lambda setting: lambda key: (None, ended))
    # The last 50 such steps are 150, 153, ..., 297.
    assert independent.measure(steps=600, seeds=3) == {"scores": [pytest.approx((150 + 297) / 2)] * 3}


def test_ours_is_held_against_each_of_the_others():
    lines = [
        {"agent": name, "seed": k, "training_return": x}
        for name, scores in {"purejaxdqn": [3.0, 5.0], "PyTorch": [1.0, 4.0], "scan and cond": [5.0, 5.0]}.items()
        for k, x in enumerate(scores)
    ]
    rows = {row["agent"]: row for row in independent.summarise(lines)}
    assert (rows["purejaxdqn"]["ours is higher"], rows["purejaxdqn"]["mean"]) == ("", 4.0)
    # 3 beats 1 of (1, 4), 5 beats both; 3 beats none of (5, 5), 5 ties with both.
    assert rows["PyTorch"]["ours is higher"] == "0.75"  # of too few seeds for an interval
    assert rows["scan and cond"]["ours is higher"] == "0.25"
    assert (rows["PyTorch"]["lowest seed"], rows["PyTorch"]["highest seed"], rows["PyTorch"]["seeds"]) == (1.0, 4.0, 2)
