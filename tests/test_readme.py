"""The README's commands, pasted in order."""

import itertools
import re
import shlex

import pytest

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
