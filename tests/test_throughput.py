"""Two revisions measured in turn."""

from pathlib import Path

from benchmarks import throughput


def test_revisions_are_measured_in_turn_and_compared_round_by_round(monkeypatch):
    checked_out, measured = [], []
    rates = iter((100.0, 90.0, 10.0, 20.0, 100.0, 120.0, 10.0, 10.0, 50.0, 50.0, 10.0, 30.0))

    def rate_in(tree, config, overrides):
        measured.append((tree.name, config))
        return next(rates)

    monkeypatch.setattr(throughput, "check_out", lambda revision, tree: checked_out.append((revision, Path(tree).name)))
    monkeypatch.setattr(throughput, "_rate_in", rate_in)
    cartpole, breakout = throughput.compare_revisions("a^", "b", rounds=3)
    assert checked_out == [("a^", "old"), ("b", "new")]
    assert measured[:4] == [(tree, config) for config in throughput.REVISIONS for tree in ("old", "new")]
    assert (cartpole["old"], cartpole["new"], cartpole["config"]) == ("a^", "b", "cartpole_cleanrl")
    assert (cartpole["ratio"], cartpole["lowest"], cartpole["highest"]) == (1.0, 0.9, 1.2)
    assert (breakout["old, steps a second"], breakout["ratio"]) == (10.0, 2.0)
