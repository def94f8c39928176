"""Two revisions measured in turn."""

from pathlib import Path

from benchmarks import throughput
from purejaxdqn import load_config


def test_revisions_are_measured_in_turn_and_compared_round_by_round(monkeypatch):
    checked_out, measured = [], []
    rates = iter((100.0, 90.0, 10.0, 20.0, 100.0, 120.0, 10.0, 10.0, 50.0, 50.0, 10.0, 30.0))

    def rate_in(tree, config, overrides):
        measured.append((tree.name, config))
        return next(rates)

    two = {config: throughput.REVISIONS[config] for config in ("cartpole_cleanrl", "minatar/breakout")}
    monkeypatch.setattr(throughput, "REVISIONS", two)
    monkeypatch.setattr(throughput, "check_out", lambda revision, tree: checked_out.append((revision, Path(tree).name)))
    monkeypatch.setattr(throughput, "_rate_in", rate_in)
    cartpole, breakout = throughput.compare_revisions("a^", "b", rounds=3)
    assert checked_out == [("a^", "old"), ("b", "new")]
    assert measured[:4] == [(tree, config) for config in two for tree in ("old", "new")]
    assert (cartpole["old"], cartpole["new"], cartpole["config"]) == ("a^", "b", "cartpole_cleanrl")
    assert (cartpole["ratio"], cartpole["lowest"], cartpole["highest"]) == (1.0, 0.9, 1.2)
    assert (breakout["old, steps a second"], breakout["ratio"]) == (10.0, 2.0)


def test_revisions_are_measured_with_uniform_and_with_prioritised_replay():
    kinds = [load_config(name.split("+"), overrides).replay.kind for name, overrides in throughput.REVISIONS.items()]
    assert sorted(kinds) == ["prioritised", "prioritised", "uniform", "uniform"]
