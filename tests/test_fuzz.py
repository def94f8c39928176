"""Generated command lines and files for all commands, with a fixed seed: each ends well, or in lines that say why.

Nothing is trained: what trains, plays and draws is replaced; everything before and after it is as for a user.
"""

import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest

from purejaxdqn.core.config import config_keys
from purejaxdqn.envs import main as envs
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.pictures import searches as search_pictures
from purejaxdqn.pictures import sweeps as sweep_pictures
from purejaxdqn.plot import main as plot
from purejaxdqn.policies import policies
from purejaxdqn.report import main as report
from purejaxdqn.runs.metrics import COLUMNS, Metrics
from purejaxdqn.search import main as search
from purejaxdqn.searches import runner as search_runner
from purejaxdqn.searches.trials import TrialResult
from purejaxdqn.sweep import main as sweep
from purejaxdqn.sweeps import runner as sweep_runner
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.results import RunResult
from purejaxdqn.sweeps.stages import PieceResult
from purejaxdqn.train import main as train
from tests.conftest import TINY

SEED = 36
COUNTS = {
    **{"train": 400, "sweep": 300, "search": 250, "evaluate": 250},
    **{"export": 150, "plot": 150, "report": 150, "envs": 20},
}
MAINS = {
    **{"train": train, "sweep": sweep, "search": search, "evaluate": evaluate},
    **{"export": export, "plot": plot, "report": report, "envs": envs},
}
KEYS = [*config_keys(), "env.params.gravity", "env.params.nothing", "env.kwargs.size", "env.kwargs.size"]
NUMBERS = [
    "-1",
    "0",
    "1",
    "2",
    "3",
    "8",
    "40",
    "600",
    "0.5",
    "1e-3",
    "1e400",
    ".nan",
    "-.inf",
    "2000000000",
    "9" * 30,
    "9" * 5000,
]
WORDS = [
    "true", "null", "", "x", "relu", "gelu", "iqn", "quantile", "prioritised", "none", "double",
    "CartPole-v1", "Catch-bsuite", "nowhere:World", "os:path", ":", "..", "/", "é日本", "\u202e", "\x1b[31m", "a\nb",
    "\udcff", "%s{0}$x_{", "'", '"', "\\", "x" * 3000, "__main__:X", "json.__main__:X", "../../x",
]  # fmt: skip
YAML = [
    "[", "]", "{", "}", "[[]]", "{a: 1}", "{a: {b: {c: 1}}}", "[1, [2]]", "[true, x]", "{kind: iqn, atoms: 0}", "- 1",
    "a: b: c", "&a", "*a", "!!int ''", "!!bool maybe", "!!python/object:os.system {}", "!!binary x", '"\\UFFFFFFFF"',
    "|", ">", "? 1", "---", "--- 1\n--- 2", "{1: 2}", "{a: 1, a: 2}", "[" * 100, "{<<: {a: 1}}", "0x10", "010",
    "1:30", "2020-13-45", "#", "@", "`",
]  # fmt: skip
OPTIONS = {
    "train": ["--segments", "--seeds-at-once", "--log"],
    "sweep": [
        "--seeds",
        "--points",
        "--draw",
        "--draw-seed",
        "--memory",
        "--devices",
        "--process",
        "--processes",
        "--configs",
    ],
    "search": [
        "--seeds",
        "--batch",
        "--halving",
        "--rungs",
        "--sampler",
        "--objective",
        "--memory",
        "--devices",
        "--study",
    ],
    "evaluate": ["--episodes", "--backend", "--seed-index", "--seed", "--gif"],
    "export": ["--format", "--seed-index"],
    "plot": ["--out", "--format"],
    "report": [],
    "envs": [],
}
SOUND = [
    "gamma=0.9", "seed=3", "n_step=2", "loss=squared", "network.hidden=[8]", "network.dueling=true",
    "replay.kind=prioritised", "distribution={kind: quantile, atoms: 5}", "bootstrap.kind=double",
    "env.params.gravity=9", "log=csv", "num_seeds=1", "optimizer.max_grad_norm=null", "env.sticky_actions=0.1",
    "checkpoint.every=40",
]  # fmt: skip
SWEPT = [
    "gamma=0.9,0.99", "network.hidden=[8],[8, 16]", "network={hidden: [8]},{hidden: [16]}", "loss=huber,squared",
    "env.params={gravity: 9},{gravity: 8}", "env.params.gravity=9,8.5", "reward.clip=null,1", "n_step=1,2,3",
]  # fmt: skip
SOUND_OPTIONS = {
    "--segments": "1", "--seeds-at-once": "2", "--seeds": "2", "--draw": "random", "--memory": "4GiB",
    "--devices": "1", "--batch": "1", "--sampler": "random", "--objective": "auc", "--study": "s", "--episodes": "2",
    "--seed-index": "0", "--seed": "1",
}  # fmt: skip
FLAGS = [
    "--quiet",
    "--no-cache",
    "--json",
    "--best",
    "--trust",
    "--no-films",
    "--print-config",
    "--debug-nans",
    "--help",
    "--versoin",
    "-q",
    "--",
]


class Generator:
    """Arguments and files, from one stream of random numbers."""

    def __init__(self, name, made):
        self.random = random.Random(f"{SEED} {name}")
        self.name, self.made = name, made

    def rarely(self, chance=0.15):
        return self.random.random() < chance

    def value(self):
        return self.random.choice(self.random.choice([NUMBERS, NUMBERS, WORDS, YAML]))

    def key(self):
        key = self.random.choice(KEYS)
        if self.rarely():
            place = self.random.randrange(len(key))
            key = key[:place] + self.random.choice(["", ".", "x", "\n", "é", ".a" * 3000]) + key[place + 1 :]
        return key

    def override(self):
        if self.name == "sweep" and self.rarely(0.3):
            return self.random.choice(SWEPT)
        if self.rarely(0.6):
            return self.random.choice(SOUND)
        if self.rarely(0.1):
            return self.value()
        count = self.random.choice([1, 1, 2, 3]) if self.name == "sweep" else 1
        return f"{self.key()}={','.join(self.value() for _ in range(count))}"

    def argument(self, option):
        if option in SOUND_OPTIONS and self.rarely(0.7):
            return SOUND_OPTIONS[option]
        return self.random.choice(
            [self.value(), self.random.choice(["tpe", "random", "sobol", "auc", "csv", "onnx", "4GiB", "a.gif"])]
        )

    def tree(self, depth=0):
        """A mapping of keys to values, some of them nested, as YAML or something like it."""
        lines = []
        for _ in range(self.random.randrange(4)):
            indent, key = "  " * depth, self.key()
            if depth < 2 and self.rarely(0.3):
                lines += [f"{indent}{key}:", *self.tree(depth + 1)]
            elif self.name == "search" and self.rarely(0.5):
                lines.append(f"{indent}{key}: {{low: {self.value()}, high: {self.value()}, log: {self.value()}}}")
            else:
                lines.append(f"{indent}{key}: {self.value()}")
        return lines

    def damaged(self, content, suffix):
        """A file's contents, changed in a way that its format allows, or cut, or another."""
        kind = self.random.randrange(5)
        try:
            if suffix == ".json" and kind < 3:
                found = json.loads(content)
                key = self.random.choice(list(found))
                found[key] = self.random.choice(
                    [None, [], {}, "x", -1, 1e308, [None], [[1]], {"a": 1}, "\x1b", 10**400]
                )
                return json.dumps(found).encode()
            if suffix == ".yaml" and kind < 3:
                lines = content.decode().splitlines()
                place = self.random.randrange(len(lines))
                lines[place] = f"{lines[place].partition(':')[0]}: {self.value()}"
                return "\n".join(lines).encode("utf-8", "surrogatepass")
            if suffix == ".csv" and kind < 3:
                rows = [line.split(",") for line in content.decode().splitlines()]
                row = self.random.choice(rows)
                row[self.random.randrange(len(row))] = self.random.choice(
                    ["", "x", "-1", "nan", "1e400", "9" * 30, "9" * 140_000, '"']
                )
                return "\n".join(map(",".join, rows)).encode()
        except (ValueError, IndexError):
            pass
        return self.random.choice(
            [
                b"",
                content[: len(content) // 2],
                b"\x00\xff",
                b"[" * 100_000,
                b"{}",
                b"[]",
                b"3",
                self.value().encode("utf-8", "replace"),
            ]
        )

    def directory(self, here):
        """A path: of a sound directory, a damaged one, or of something else."""
        kind = self.random.choice(["run", "run", "sweep", "search", "exported"])
        if self.rarely():
            return self.random.choice(["nowhere", "file", "empty", ".", "", *WORDS])
        folder = shutil.copytree(self.made / kind, here / kind, dirs_exist_ok=True)
        if self.rarely(0.8):
            path = self.random.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
            path.write_bytes(self.damaged(path.read_bytes(), path.suffix))
        return kind

    def usual(self, *words, rare=()):
        """One of ``words``, or now and then one of ``rare``."""
        return self.random.choice(rare if rare and self.rarely(0.08) else words)

    def training(self):
        """What ``train``, ``sweep`` and ``search`` share."""
        found = []
        for _ in range(self.usual(1, 1, 1, 2)):
            found += ["--config", self.usual("cartpole_cleanrl", "dqn", "catch", rare=["a.yaml", "iqn", *WORDS])]
        searched = "gamma" if self.name == "search" else None
        found += [] if self.rarely(0.05) else [word for word in TINY if word.partition("=")[0] != searched]
        found += ["--out", self.usual("out", rare=["file", "empty", *WORDS])]
        found += [self.override() for _ in range(self.usual(0, 1, 1, 2))]
        if self.name == "train" and self.rarely(0.3):
            more = [self.override()] if self.rarely(0.4) else []
            return ["--resume", None, *more]
        if self.name == "search":
            found += ["--space", self.usual("g.yaml", rare=["search/small", "a.yaml", "file"])]
            found += ["--trials", self.usual("1", "2", rare=["x", "0"]), "--retest", self.usual("1", "2", rare=["-1"])]
        if self.name == "sweep" and self.rarely(0.2):
            found += ["--space", self.usual("g.yaml", rare=["a.yaml"]), "--points", self.usual("2", "3", rare=["x"])]
        return found

    def arguments(self, here):
        """The arguments of one call."""
        found = []
        if self.name in ("train", "sweep", "search"):
            (here / "g.yaml").write_text("gamma: {low: 0.8, high: 0.99}\n")
            (here / "a.yaml").write_bytes("\n".join(self.tree()).encode("utf-8", "surrogatepass"))
            found = [self.directory(here) if word is None else word for word in self.training()]
        elif self.name != "envs":
            found = [self.directory(here) for _ in range(self.usual(1, 1, 2) if self.name == "plot" else 1)]
        if self.name == "export":
            found += ["--format", self.usual("safetensors", rare=["x", "onnx"]), "--out", "out"]
        for option in OPTIONS[self.name]:
            if self.rarely(0.5 / len(OPTIONS[self.name])):
                found += [option] if self.rarely(0.05) else [option, self.argument(option)]
        if self.rarely(0.1):
            found.insert(self.random.randrange(len(found) + 1), self.random.choice(FLAGS))
        return [word for word in found if "\x00" not in word]


@pytest.fixture(scope="module")
def made(finished_run, tmp_path_factory):
    """A sound directory of each kind, small and quickly copied."""
    place = tmp_path_factory.mktemp("made")
    shutil.copytree(finished_run, place / "run")
    with pytest.MonkeyPatch.context() as patch:
        replace_what_is_slow(patch)
        patch.chdir(place)
        (place / "space.yaml").write_text("gamma: {low: 0.8, high: 0.99}\n")
        common = ["--config", "cartpole_cleanrl", "--no-cache", "--quiet", *TINY]
        assert export([str(place / "run"), "--format", "safetensors", "--out", "exported"]) == 0
        assert sweep([*common, "--seeds", "2", "--out", "sweep", "gamma=0.9,0.99"]) == 0
        assert search([*common, "--space", "space.yaml", "--trials", "2", "--retest", "2", "--out", "search"]) == 0
    return place


def replace_what_is_slow(patch):
    """Replace training, playing and drawing, and what changes this process's threads."""

    def train_stage(points, work, stage, controls):
        for group in work.groups:
            runs = len(group.runs)
            yield PieceResult(
                group.runs,
                np.ones((runs, 2)),
                np.zeros(runs, bool),
                Metrics(*(np.ones((runs, 2)) for _ in COLUMNS[1:])),
            )

    def train_batch(points, seeds, settings):
        for k in range(len(points)):
            numbers = 9.0, 9.0, None, False, np.arange(2), np.ones(2), np.ones(2)
            yield TrialResult(k, [RunResult(Run(k, seed), *numbers) for seed in range(seeds)], [], False)

    def run(opened, *_, **__):
        seeds = opened.config.num_seeds
        numbers = {"run_seconds": 1.0, "env_steps_per_second": 1, "iqm": 1.0, "final_eval_return": [1.0]}
        return {**numbers, "diverged_step": [None] * seeds, "diverged": [False] * seeds}

    patch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda **_: None)
    patch.setattr("purejaxdqn.runs.runner.run", run)
    patch.setattr("purejaxdqn.sweep.join_processes", lambda arguments: (0, 1))
    patch.setattr(sweep_runner, "train_stage", train_stage)
    patch.setattr(search_runner, "train_batch", train_batch)
    patch.setattr(sweep_pictures, "draw_sweep", lambda *_: [])
    patch.setattr(search_pictures, "draw_search", lambda *_, **__: [])
    patch.setattr("purejaxdqn.pictures.run_directory.draw_run", lambda *_: [])
    patch.setattr("purejaxdqn.pictures.redrawing.compare_runs", lambda *_: None)
    patch.setattr("purejaxdqn.pictures.run_reports.film_best_agent", lambda *_, **__: "")
    patch.setattr("purejaxdqn.pictures.run_reports._curves", lambda *_: iter(()))
    patch.setattr(policies, "evaluate_policy", lambda config, params, *, episodes, seed: np.ones((config.num_seeds, 2)))
    patch.setattr(
        policies, "evaluate_in_gymnasium", lambda config, params, *, episodes, seed: np.ones((config.num_seeds, 2))
    )
    patch.setattr("purejaxdqn.pictures.films.film_episode", lambda *_, **__: "")
    patch.setattr("purejaxdqn.envs.describe_environments", lambda: [{"id": "x"}])


def listing(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_whatever_is_typed_ends_well_or_in_lines_that_say_why(name, made, quietly, monkeypatch, tmp_path):
    replace_what_is_slow(monkeypatch)
    generator, problems, codes = Generator(name, made), [], Counter()
    for number in range(COUNTS[name]):
        here = tmp_path / str(number)
        (here / "empty").mkdir(parents=True)
        (here / "file").write_text("x")
        monkeypatch.chdir(here)
        arguments = generator.arguments(here)
        before = listing(here)
        try:
            code, out, err = quietly(MAINS[name], *arguments)
        except BaseException as error:
            problems.append(f"{number} {arguments}: {error!r}"[:2000])
            continue
        errors = [line for line in err if line.startswith("error: ")]
        fine = code in (0, 2, 3) and all(line.isprintable() and len(line) < 1200 for line in err)
        if code == 2:
            written = out or listing(here) != before
            fine = fine and errors and (not written or (name == "plot" and len(arguments) > 1))
        if not fine:
            problems.append(f"{number} {arguments}: {code} {out[:3]} {err[:5]}"[:2000])
        if name == "sweep" and (here / "out" / "points.csv").exists() and quietly(plot, "out")[0]:
            problems.append(f"{number} {arguments}: it cannot be drawn again")
        codes[code] += 1
        shutil.rmtree(here)
    assert not problems, f"{len(problems)} of {COUNTS[name]}\n" + "\n".join(problems)
    assert name == "envs" or min(codes[0], codes[2]) > COUNTS[name] / 8, codes
