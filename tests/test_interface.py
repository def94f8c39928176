"""What a newcomer sees of the commands: the list of configs, help, completion, the schema, and short notes."""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from importlib import import_module

import jsonschema
import pytest
import yaml

from docsite import reference
from docsite import schema as schemas
from purejaxdqn import load_config
from purejaxdqn.__main__ import COMMANDS
from purejaxdqn.completion import print_completion
from purejaxdqn.config.reading import shipped_configs, to_yaml
from purejaxdqn.config.shipped import first_sentence, list_configs
from purejaxdqn.system.faults import UserError
from purejaxdqn.train import main as train
from tests.conftest import TRAINABLE

SCHEMA = json.loads(schemas.PATH.read_text(encoding="utf-8"))


class Yaml12(yaml.SafeLoader):
    """Reads ``10_000`` as editors do, a string, and ``1e-3`` as a number."""


Yaml12.yaml_implicit_resolvers = {
    letter: [one for one in found if not one[0].endswith((":int", ":float"))]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), None)
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
Yaml12.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, None)


def errors_of(text):
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(yaml.load(text, Yaml12))]


def test_the_schema_is_that_of_the_config():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert schemas.schema() == SCHEMA, "run python -m docsite.schema"


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_config_names_the_schema_and_follows_it(name):
    path = shipped_configs()[name]
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == schemas.first_line(path)
    assert (path.parent / text.splitlines()[0].partition("=")[2]).resolve() == schemas.PATH
    assert errors_of(text) == []
    if name in TRAINABLE:
        assert errors_of(to_yaml(load_config(name))) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("gama: 0.9", 1),
        ("gamma: fast", 1),
        ("network: {hiden: [8]}", 1),
        ("total_timesteps: 1_000", 0),
        ("total_timesteps: 1e6", 0),
        ("total_timesteps: many", 1),
        ("network.hidden: [8]", 0),
        ("loss: hubr", 1),
    ],
)
def test_an_editor_marks_what_is_wrong(text, wrong):
    assert len(errors_of(text)) == wrong


def test_the_shipped_configs_are_listed_in_groups_with_a_line_each(monkeypatch, quietly):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = quietly(train, "--list-configs")
    assert code == 0
    assert out == [line.rstrip() for line in "\n".join(list_configs()).rstrip().splitlines()]
    assert all(len(line) <= 80 for line in out)
    groups = [line for line in out if line and not line.startswith(" ")]
    assert [group.partition(":")[0] for group in groups] == [
        "configs of environments",
        "presets of algorithms",
        "search spaces",
    ]
    names = [line.split()[0] for line in out if line.startswith("  ")]
    assert sorted(names) == sorted([*shipped_configs(), *shipped_configs("--space")])
    presets = out[out.index(groups[1]) : out.index(groups[2])]
    assert {"rainbow", "pqn", "r2d2"} <= {line.split()[0] for line in presets if line.startswith("  ")}


def test_the_first_sentence_of_a_comment_ends_with_it(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "# yaml-language-server: $schema=x\n# Walks (0.9 of\n# a mile. Far) home. Then sleeps.\ngamma: 0.9\n"
    )
    assert first_sentence(path) == "Walks (0.9 of a mile. Far) home"


def test_a_preset_alone_says_on_which_environment_it_runs(quietly):
    note = "no --config names an environment, so this runs on CartPole-v1 (env.id)"
    for configs, said in ((["rainbow"], [note]), (["pqn"], [note]), (["cartpole", "rainbow"], [])):
        words = [word for name in configs for word in ("--config", name)]
        _, _, err = quietly(train, *words, "--print-config")
        assert [line for line in err if "environment" in line] == said
    _, _, err = quietly(train, "--config", "rainbow", "--print-config", "env.id=Catch-bsuite")
    assert note not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_are_read_by_its_parser(name):
    parser = import_module(f"purejaxdqn.{name}").parser()
    examples = [line.strip() for line in parser.format_help().partition("examples:")[2].splitlines() if line.strip()]
    assert examples and all(line.startswith(f"python -m purejaxdqn.{name} ") for line in examples)
    for line in examples:
        parser.parse_intermixed_args(shlex.split(line)[3:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help(name):
    assert all(action.help for action in import_module(f"purejaxdqn.{name}").parser()._actions)


def test_help_shows_defaults():
    text = " ".join(import_module("purejaxdqn.search").parser().format_help().partition("options:")[2].split())
    assert "the sampler that proposes trials (default tpe)" in text
    assert "default False" not in text and "default None" not in text
    text = " ".join(import_module("purejaxdqn.sweep").parser().format_help().split())
    assert "random seed of the draws (default 0)" in text
    assert "| `--draw-seed N` | random seed of the draws (default 0) |" in reference.commands()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_configs_and_keys(shell, capsys):
    assert print_completion([shell], list(COMMANDS)) == 0
    script = capsys.readouterr().out
    for word in ("sweep", "--seeds-at-once", "cartpole_pqn", "search/dqn", "optimizer.learning_rate=", "stablehlo"):
        assert word in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


COMPLETED = {
    # words after ``purejaxdqn``, the last of them to be completed: what it becomes, in a folder of the files below
    "sw": {"sweep"},
    "train --config acro": {"acrobot"},
    "train --config minatar/breakout_": {"minatar/breakout_pqn"},
    "train --config my": {"my.yaml", "my_runs"},
    "train --config my_runs/": {"my_runs/cartpole", "my_runs/own.yaml"},
    "sweep --configs my": {"my.yaml", "my_runs"},
    "sweep --space search/dq": {"search/dqn"},
    "search --space my": {"my.yaml", "my_runs"},
    "train --resume my": {"my_runs"},
    "train --config cartpole --out my_runs/": {"my_runs/cartpole"},
    "train --log w": {"wandb"},
    "train gam": {"gamma="},
    "evaluate agents/froz": {"agents/frozen_lake"},
    "evaluate my": {"my_runs"},
    "evaluate my_runs/cartpole --gif my": {"my.gif", "my.yaml", "my_runs"},
    "evaluate my_runs/cartpole --backend gymna": {"gymnax", "gymnasium"},
    "export my": {"my_runs"},
    "export my_runs/cartpole --format on": {"onnx"},
    "report my": {"my_runs"},
    "plot my_runs/cartpole my": {"my_runs"},
    "plot my_runs/cartpole --out my": {"my.gif", "my.yaml", "my_runs"},
}


@pytest.fixture(scope="module")
def in_bash(tmp_path_factory):
    """What bash offers for each of ``COMPLETED``: the scripts are sourced once."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "my_runs" / "cartpole").mkdir(parents=True)
    for name in ("my.yaml", "my.gif", "my_runs/own.yaml", "my_runs/notes.txt"):
        (folder / name).touch()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_completion(["bash"], list(COMMANDS))
    lines = [printed.getvalue()]
    for words in COMPLETED:
        line = ["purejaxdqn", *words.split(" ")]
        lines.append(f"COMP_WORDS=({shlex.join(line)}); COMP_CWORD={len(line) - 1}; _shtab_purejaxdqn")
        lines.append('echo "${COMPREPLY[@]}"')
    found = subprocess.run(["bash"], input="\n".join(lines), cwd=folder, text=True, capture_output=True, check=True)
    assert found.stderr == ""
    return dict(zip(COMPLETED, map(str.split, found.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("words", COMPLETED)
def test_bash_completes_names_files_and_directories(words, in_bash):
    assert set(in_bash[words]) == COMPLETED[words]


def test_completion_for_another_shell_is_refused():
    for words in ([], ["fish"], ["tcsh"], ["bash", "zsh"]):
        with pytest.raises(UserError, match=r"--print-completion takes one of bash, zsh$"):
            print_completion(words, list(COMMANDS))
