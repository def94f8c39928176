"""CartPole's benchmark: the results of one config do not replace those of another."""

from benchmarks import cartpole, harness

SCORES = [{"seed": 2026, "seed_index": k, "gymnax": 500.0, "gymnasium": 499.0 + k} for k in range(2)]


def test_result_files_are_named_by_config():
    names = {config: list(cartpole.tables_of(config, SCORES, [])) for config in ("cartpole_double", "cartpole_pqn")}
    assert not set(names["cartpole_double"]) & set(names["cartpole_pqn"])
    assert all((harness.RESULTS / f"{name}.csv").exists() for name in names["cartpole_double"])
    assert next(iter(cartpole.tables_of("minatar/breakout.yaml", SCORES, []))) == "minatar_breakout_scores"


def test_a_seed_is_at_500_in_both_back_ends_only_if_it_is_in_each():
    counted = {row["played in"]: row["seeds at 500"] for row in cartpole.count(SCORES)}
    assert counted == {"gymnax": "2 of 2", "Gymnasium": "1 of 2", "both": "1 of 2"}
