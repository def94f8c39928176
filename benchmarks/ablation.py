"""What does each addition to DQN gain by itself, and what does Rainbow lose without it?

Trains DQN, DQN with one addition, Rainbow, and Rainbow without one of its six parts on CartPole, Acrobot and Catch,
for 50,000 steps and ten seeds. Nothing else differs; in particular, all variants share a learning rate. DQN with an
addition is compared with DQN, and Rainbow without a part with Rainbow, by the probability that a run of one scores
higher than a run of the other (Agarwal et al. 2021, section 4.3).

    python -m benchmarks.ablation              an hour on two cores
    python -m benchmarks.ablation --minatar    the five MinAtar games for 1,000,000 steps, five seeds: for a GPU
    python -m benchmarks.ablation --pqn        parts of learning without replay: Breakout and Asterix, a million steps,
                                               five seeds: an hour on two cores
    python -m benchmarks.ablation --quick      under a minute: two variants of one environment of the study, short
                                               runs, nothing kept
    python -m benchmarks.ablation --table      table and picture from the study's CSV, without training
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.pictures import save
from purejaxdqn.runs.statistics import improvement_in_words, iqm, iqm_interval

SEED = 2026
ADDITIONS = (
    "double_dqn",
    "dueling",
    "n_step",
    "per",
    "noisy",
    "c51",
    "qr_dqn",
    "iqn",
    "fqf",
    "munchausen",
)


class Setting(NamedTuple):
    """Plain DQN on an environment."""

    config: str
    overrides: tuple[str, ...]  # include a reward scale that keeps values within the support of C51, -10 to 10
    exploration: tuple[float, float]  # epsilon's start and end, for Rainbow without noise
    below: str = ""  # YAML between the config and the presets, to remove additions that the config already has


SETTINGS: dict[str, Setting] = {
    "CartPole": Setting("cartpole_cleanrl", ("schedule.warmup=1_000", "reward.scale=0.1"), (1.0, 0.05)),
    "Acrobot": Setting(
        "acrobot",
        ("reward.scale=0.1",),
        (1.0, 0.1),
        below="{n_step: 1, bootstrap: {kind: greedy}, network: {layer_norm: false}, optimizer: {learning_rate: 6.3e-4},"
        " schedule: {gradient_steps: 1, target_every: 500}}",
    ),
    "Catch": Setting("catch", (), (1.0, 0.05)),
}
MINATAR: dict[str, Setting] = {
    name.title().replace("_", ""): Setting(
        f"minatar/{name}",
        ("reward.scale=0.1",),
        (1.0, 0.1),
        below="{gamma: 0.99, n_step: 1, bootstrap: {kind: greedy}, optimizer: {learning_rate: 2.5e-4, anneal: false},"
        " exploration: {end: 0.1}, schedule: {tau: 1.0}}",
    )
    for name in ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
}


class Variant(NamedTuple):
    """Changes to a setting."""

    presets: tuple[str, ...]
    overrides: tuple[str, ...]
    against: str | None  # name of the variant to compare it with


def variants(setting: Setting) -> dict[str, Variant]:
    """Return DQN, DQN with each addition, Rainbow, and Rainbow without each of its parts, by name."""
    start, end = setting.exploration
    less = {
        "double": ("bootstrap.kind=greedy",),
        "dueling": ("network.dueling=false",),
        "n steps": ("n_step=1",),
        "PER": ("replay.kind=uniform",),
        "noise": ("network.noisy=false", f"exploration.start={start}", f"exploration.end={end}"),
        "C51": ("distribution.kind=scalar",),
    }
    return {
        "DQN": Variant((), (), None),
        **{f"+ {name}": Variant((name,), (), "DQN") for name in ADDITIONS},
        "Rainbow": Variant(("rainbow",), (), "DQN"),
        **{f"Rainbow - {name}": Variant(("rainbow",), undo, "Rainbow") for name, undo in less.items()},
    }


_ROLLOUT = 128 * 32  # environment steps
PQN: dict[str, Setting] = {
    name.title(): Setting(
        f"minatar/{name}_pqn",
        (),
        (1.0, 0.05),
        below="{gamma: 0.99, bootstrap: {kind: greedy}, optimizer: {learning_rate: 5e-4}, exploration: {end: 0.05},"
        " rollout: {lambda: 0.65, epochs: 2}}",  # the paper's
    )
    for name in ("breakout", "asterix")
}


def pqn_variants(setting: Setting) -> dict[str, Variant]:
    """Return PQN, and PQN with one part changed, by name."""
    support = "v_min: -1, v_max: 20"
    changes = {
        "lambda 0": "rollout.lambda=0",
        "lambda 0.95": "rollout.lambda=0.95",
        "no layer normalisation": "network.layer_norm=false",
        "1 epoch": "rollout.epochs=1",
        "4 epochs": "rollout.epochs=4",
        "target network": f"schedule.target_every={2 * _ROLLOUT}",
        "categorical": f"distribution={{kind: categorical, {support}}}",
        "HL-Gauss": f"distribution={{kind: hl_gauss, {support}}}",
    }
    return {"PQN": Variant((), (), None), **{name: Variant((), (one,), "PQN") for name, one in changes.items()}}


class Study(NamedTuple):
    """Variants of one algorithm in several environments."""

    settings: Mapping[str, Setting]
    variants: Callable[[Setting], dict[str, Variant]]
    steps: int
    seeds: int
    short: tuple[str, int]  # environment and steps of ``--quick``


STUDIES = {
    "ablation": Study(SETTINGS, variants, 50_000, 10, ("Catch", 6_000)),
    "ablation_minatar": Study(MINATAR, variants, 1_000_000, 5, ("Breakout", 12_000)),
    "ablation_pqn": Study(PQN, pqn_variants, 240 * _ROLLOUT, 5, ("Breakout", 4 * _ROLLOUT)),
}


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--minatar", action="store_true")
    which.add_argument("--pqn", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the runs here, and resume runs that are here")
    arguments = parser.parse_args()
    name = "ablation_minatar" if arguments.minatar else "ablation_pqn" if arguments.pqn else "ablation"
    if arguments.table:
        path = harness.RESULTS / f"{name}.csv"
        if not path.exists():
            parser.error(f"--table: {path} does not exist; call without --table, which trains and writes it")
        with path.open(encoding="utf-8", newline="") as file:
            show(name, list(csv.DictReader(file)), keep=True)
        return
    study = STUDIES[name]
    if arguments.quick:
        short, steps = study.short
        study = study._replace(settings={short: study.settings[short]}, steps=steps, seeds=2)
    lines: list[dict[str, Any]] = []
    with harness.runs_in(None if arguments.quick else arguments.out) as folder:
        for environment, setting in study.settings.items():
            chosen = list(study.variants(setting).items())[: 2 if arguments.quick else None]
            for variant, what in chosen:
                place = folder / f"{environment}-{variant}".replace(" ", "")
                done = train(setting, what, place, study.steps, study.seeds)
                lines += [{"environment": environment, "variant": variant, **line} for line in done]
    if not arguments.quick:
        harness.write(name, lines)
    show(name, lines, keep=not arguments.quick)


def train(setting: Setting, variant: Variant, folder: Path, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Train all seeds with the command; return one line per seed."""
    from purejaxdqn.runs.metrics import read_metrics

    configs = layers(setting, variant, folder.parent)
    numbers = (f"total_timesteps={steps}", f"seed={SEED}", f"num_seeds={seeds}")
    final = harness.train(configs, (*setting.overrides, *variant.overrides, *numbers), folder)["final_eval_return"]
    areas = read_metrics(folder / "metrics.csv").eval_return.mean(1, dtype=np.float64)
    return [{"seed": k, "final_eval_return": final[k], "auc": float(areas[k])} for k in range(seeds)]


def layers(setting: Setting, variant: Variant, folder: Path) -> list[str]:
    """Return the configs of a variant in the order of the command; ``setting.below`` is written to ``folder``."""
    plain = [setting.config]
    if setting.below:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"plain_{setting.config.replace('/', '_')}.yaml"
        path.write_text(setting.below + "\n", encoding="utf-8")
        plain.append(str(path))
    return [*plain, *variant.presets]


def summarise(lines: Sequence[Mapping[str, Any]], study: Study = STUDIES["ablation"]) -> list[dict[str, Any]]:
    """Return the table: one row per environment and variant."""
    scores: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key in dict.fromkeys((one["environment"], one["variant"]) for one in lines):
        runs = [one for one in lines if (one["environment"], one["variant"]) == key]
        scores[key] = {name: np.array([float(one[name]) for one in runs]) for name in ("final_eval_return", "auc")}
    rows = []
    for (environment, variant), mine in scores.items():
        against = study.variants(study.settings[environment])[variant].against
        final, interval = mine["final_eval_return"], iqm_interval(mine["final_eval_return"])
        better = {"final_eval_return": "", "auc": ""}
        if against and (environment, against) in scores:
            for name, values in mine.items():
                better[name] = improvement_in_words(values, scores[environment, against][name])
        rows.append(
            {
                "environment": environment,
                "variant": variant,
                "final return, IQM": f"{iqm(final):.4g}",
                "95% CI": "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}",
                "area under the curve, IQM": f"{iqm(mine['auc']):.4g}",
                "better than": against or "",
                "at the end": better["final_eval_return"],
                "by area": better["auc"],
            }
        )
    return rows


def show(name: str, lines: Sequence[Mapping[str, Any]], *, keep: bool) -> None:
    """Print the table; if ``keep``, also write it and draw the picture."""
    table = summarise(lines, STUDIES[name])
    print(harness.table(table))
    if keep:
        print(harness.write(f"{name}_table", table, of=name))
        draw(name, lines)


def draw(name: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draw the areas under the curve by variant: every seed, their IQM (line) and its 95% interval (bar)."""
    from purejaxdqn.pictures.figures import style, subplots
    from purejaxdqn.pictures.palette import SOLVED_COLOR
    from purejaxdqn.pictures.runs import draw_scores

    environments = list(dict.fromkeys(one["environment"] for one in lines))
    names = list(dict.fromkeys(one["variant"] for one in lines))
    with style():
        size = (1.6 + 2.8 * len(environments), 0.6 + 0.25 * len(names))
        figure, grid = subplots(1, len(environments), figsize=size, sharey=True, squeeze=False)
        for axes, environment in zip(grid.flat, environments, strict=True):
            for place, variant in enumerate(names):
                areas = [
                    float(one["auc"]) for one in lines if (one["environment"], one["variant"]) == (environment, variant)
                ]
                middle = iqm(np.array(areas))
                draw_scores(axes, place, np.array(areas), centre=middle, interval=iqm_interval(np.array(areas)))
                if variant in ("DQN", "Rainbow", "PQN"):
                    axes.axvline(middle, color=SOLVED_COLOR, linestyle=":", linewidth=1)
            axes.set(title=environment, xlabel="area under the curve", yticks=range(len(names)), yticklabels=names)
        grid[0, 0].invert_yaxis()
        print(save(figure, name))


if __name__ == "__main__":
    main()
