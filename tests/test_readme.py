"""The README's commands, pasted in order, and its network."""

import itertools
import re
import shlex

import jax
import pytest

from purejaxdqn import load_config, make_train
from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def words_after(option, commands):
    return {word for words in commands for before, word in itertools.pairwise(words) if before == option}


@pytest.mark.parametrize("place", range(len(COMMANDS)), ids=lambda place: shlex.join(COMMANDS[place]))
def test_a_directory_that_a_command_takes_was_made_by_one_above(place):
    taken = {word for word in COMMANDS[place] if word.startswith("runs/")} - words_after("--out", [COMMANDS[place]])
    assert taken <= words_after("--out", COMMANDS[:place])


def test_there_are_commands_that_take_a_directory():
    assert sum("runs/cartpole/first" in words for words in COMMANDS) > 4


def test_the_network_of_its_own_trains():
    (block,) = (
        one for one in re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) if "MyNetwork" in one
    )
    names = {"jax": jax, "make_train": make_train, "config": (config := load_config("cartpole"))}
    exec(block, names)
    result = jax.eval_shape(names["train"], config.hparams(), jax.random.key(0))
    assert {leaf.shape for leaf in jax.tree.leaves(result.params)} == {(4, 64), (64,), (64, 2), (2,)}
