"""Messages for the terminal: one line each, whatever a key, a path or a library's error has in it."""

import re
import sys
from collections.abc import Iterable

from purejaxdqn.system.status import aside

MAX_LENGTH, _TAIL = 1000, 250
"""Characters of a message, and of its end, which are kept of a longer one: its end says what is wrong."""


def one_line(text: str) -> str:
    """``text`` with what a terminal would obey escaped, a long middle left out, and passwords of URLs hidden."""
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH - _TAIL]} [...] {text[-_TAIL:]}"
    if "://" in text:
        text = re.sub(r"(://[^\s/?#:@]*:)\S*@", r"\1***@", text)
        text = re.sub(r"([?&]\w*(?:password|passwd|pwd|secret|token)\w*=)[^\s&]*", r"\1***", text, flags=re.IGNORECASE)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def counted(number: int, thing: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def announce(notes: Iterable[str | None], warnings: Iterable[str] = ()) -> None:
    """Print what a command says before it trains: the notes that there are, then the warnings, each on a line."""
    for line in (*filter(None, notes), *(f"warning: {one}" for one in warnings)):
        tell(line)


def tell(text: str) -> None:
    """Print a message as one line on standard error."""
    with aside():
        print(one_line(text), file=sys.stderr)


def in_figures(value: float) -> str:
    """A return with four significant figures, or all whole ones: environments have returns such as 0.955 and 12345."""
    if 9999.5 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value + 0.0:#.4g}".removesuffix(".")  # the sum of -0.0 and 0.0 has no sign
