"""What reaches the terminal: a line for each message, with nothing that a terminal obeys, and without passwords."""

import pytest

from purejaxdqn import ConfigError, load_config
from purejaxdqn.search import main as search
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.messages import MAX_LENGTH, counted, in_figures, one_line, tell
from purejaxdqn.train import main as train


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain é 日本", "plain é 日本"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred\x07\x9b", r"\x1b[31mred\x07\x9b"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("r\udcff", r"r\udcff"),
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("at mysql+x://u:p@ss:w/o@rd@host:1/db: no", "at mysql+x://u:***@host:1/db: no"),
        ("redis://:secret@host", "redis://:***@host"),
        ("x://host/db?user=u&password=secret&a=b", "x://host/db?user=u&password=***&a=b"),
        ("sqlite:///study.db", "sqlite:///study.db"),
    ],
)
def test_a_message_is_a_printable_line_without_passwords(text, line, capsys):
    assert one_line(text) == line
    tell(text)
    assert capsys.readouterr().err.rstrip("\n") == line
    assert UserError(text).lines == (line,)
    assert str(UserError(text)) == line


def test_a_long_message_keeps_its_two_ends():
    line = one_line(f"gamma: '{'x' * 1_000_000}' must be a number")
    assert line.startswith("gamma: 'xxx")
    assert line.endswith("x' must be a number")
    assert len(line) < MAX_LENGTH + 10


@pytest.mark.parametrize(
    "override",
    [
        "colour\n\x1b[31m=1",
        "gamma='\x1b[31m'",
        'loss="\\e[31m\\n"',
        f"seed={'x' * 1_000_000}",
        f"network.hidden=[{'x,' * 10_000}]",
        f"{'k' * 1_000_000}=1",
        'env.id="\\e[31m:\\n"',
        'env.kwargs="\\e\\n"',
    ],
    ids=["key", "value", "escape", "long value", "long list", "long key", "environment", "mapping"],
)
def test_keys_and_values_are_shown_shortened_and_escaped(override, quietly):
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", [override])
    for line in caught.value.lines:
        assert line.isprintable()
        assert len(line) < MAX_LENGTH + 10
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", override)
    assert (code, len(err)) == (2, len(caught.value.lines))


def test_paths_are_escaped(quietly, tmp_path):
    code, _, err = quietly(train, "--config", tmp_path / "\x1b[31m\nno")
    assert (code, len(err)) == (2, 1)
    assert r"\x1b[31m\nno is neither a file" in err[0]


@pytest.mark.parametrize(
    "url", ["nosuch://user:secret@host/db", "postgresql://user:secret@127.0.0.1:1/db", "://u:secret@h"]
)
def test_the_password_of_a_storage_is_hidden(url, quietly, tmp_path):
    arguments = ["--config", "cartpole_cleanrl", "--space", "search/small", "--out", tmp_path / "out", "--storage", url]
    code, _, err = quietly(search, *arguments)
    assert (code, len(err)) == (2, 1)
    assert "--storage: " in err[0]
    assert "secret" not in err[0]


def test_one_thing_is_counted_in_the_singular():
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.955, "0.9550"),
        (500.0, "500.0"),
        (-99.96, "-99.96"),
        (6978.6, "6979"),
        (9999.6, "10000"),
        (-123456.7, "-123457"),
        (-0.0, "0.000"),
        (3e38, "3.000e+38"),
        (float("-inf"), "-inf"),
    ],
)
def test_returns_of_every_size_have_four_figures(value, text):
    assert in_figures(value) == text
