"""The ablation: its variants run, each differs from what it is held against in what it names, the table is right."""

import pytest

from benchmarks import ablation
from purejaxdqn.config.reading import load_config


def config_of(setting, variant, steps, folder):
    overrides = (*setting.overrides, *variant.overrides, f"total_timesteps={steps}")
    return load_config(ablation.layers(setting, variant, folder), overrides).model_dump()


@pytest.mark.parametrize("environment", [*ablation.SETTINGS, *ablation.MINATAR])
def test_every_variant_is_a_config_that_can_run_and_differs_from_what_it_is_held_against(environment, tmp_path):
    setting = {**ablation.SETTINGS, **ablation.MINATAR}[environment]
    steps = 1_000_000 if environment in ablation.MINATAR else 50_000
    variants = ablation.variants(setting)
    configs = {name: config_of(setting, variant, steps, tmp_path) for name, variant in variants.items()}
    assert len(configs) == 1 + len(ablation.ADDITIONS) + 1 + 6
    for name, variant in variants.items():
        if variant.against:
            assert configs[name] != configs[variant.against], name
    plain = configs["DQN"]
    assert (plain["n_step"], plain["bootstrap"]["kind"], plain["replay"]["kind"]) == (1, "greedy", "uniform")
    assert configs["DQN"]["exploration"] == configs["Rainbow - noise"]["exploration"]


@pytest.mark.parametrize("environment", ablation.PQN)
@pytest.mark.slow
def test_every_variant_of_pqn_differs_from_it_in_one_part(environment, tmp_path):
    study = ablation.STUDIES["ablation_pqn"]
    setting = study.settings[environment]
    variants = study.variants(setting)
    configs = {name: config_of(setting, variant, study.steps, tmp_path) for name, variant in variants.items()}
    for name, config in configs.items():
        assert len(changed(config, configs["PQN"])) == (name != "PQN"), name
    assert configs["PQN"]["rollout"] == {"steps": 32, "epochs": 2, "minibatches": 32, "lambda": 0.65}
    assert study.steps // configs["PQN"]["evaluation"]["every"] == 20


def test_acrobots_plain_dqn_is_not_what_is_shipped(tmp_path):
    """What `acrobot.yaml` is tuned to must not move what the ablation's stored runs were held against."""
    setting = ablation.SETTINGS["Acrobot"]
    plain = config_of(setting, ablation.variants(setting)["DQN"], 50_000, tmp_path)
    assert (plain["network"]["hidden"], plain["network"]["layer_norm"]) == ([120, 84], False)
    assert (plain["optimizer"]["learning_rate"], plain["replay"]["batch_size"]) == (6.3e-4, 128)
    assert (plain["schedule"]["target_every"], plain["schedule"]["gradient_steps"]) == (500, 1)


def test_minatars_plain_dqn_is_the_same_in_every_game(tmp_path):
    """Whatever its config is tuned to."""
    plain = [
        config_of(setting, ablation.variants(setting)["DQN"], 1_000_000, tmp_path)
        for setting in ablation.MINATAR.values()
    ]
    assert len({one["env"].pop("id") for one in plain}) == 5
    assert all(one == plain[0] for one in plain)
    assert (plain[0]["gamma"], plain[0]["schedule"]["tau"], plain[0]["optimizer"]["learning_rate"]) == (0.99, 1, 2.5e-4)


def changed(one, other):
    return {key for key in one if one[key] != other[key]}


@pytest.mark.parametrize("environment", ablation.SETTINGS)
def test_rainbow_less_a_part_changes_nothing_but_that_part(environment, tmp_path):
    setting = ablation.SETTINGS[environment]
    variants = ablation.variants(setting)
    configs = {name: config_of(setting, variant, 50_000, tmp_path) for name, variant in variants.items()}
    parts = {
        "double": {"bootstrap"},
        "dueling": {"network"},
        "n steps": {"n_step"},
        "PER": {"replay"},
        "noise": {"network", "exploration"},
        "C51": {"distribution"},
    }
    for name, keys in parts.items():
        assert changed(configs["Rainbow"], configs[f"Rainbow - {name}"]) == keys


def test_probabilities_are_those_of_pairs_and_the_comparison_is_the_one_named():
    def lines(variant, scores):
        return [{"environment": "Catch", "variant": variant, "final_eval_return": x, "auc": -x} for x in scores]

    rows = ablation.summarise(
        [*lines("DQN", [0, 1]), *lines("+ per", [0, 3]), *lines("Rainbow", [5, 6]), *lines("Rainbow - PER", [1, 2])]
    )
    found = {row["variant"]: (row["better than"], row["at the end"][:4], row["by area"][:4]) for row in rows}
    # per: 0 beats none and ties once, 3 beats both: (0.5 + 2) / 4.
    assert found == {
        "DQN": ("", "", ""),
        "+ per": ("DQN", "0.62", "0.38"),
        "Rainbow": ("DQN", "1.00", "0.00"),
        "Rainbow - PER": ("Rainbow", "0.00", "1.00"),
    }


@pytest.mark.parametrize("study", ["--minatar", "--pqn"])
def test_a_table_without_results_is_an_error_of_one_line(study, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["ablation", study, "--table"])
    monkeypatch.setattr(ablation.harness, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        ablation.main()
    error = capsys.readouterr().err
    assert error.startswith("error: --table: ") and error.count("\n") == 1
