"""The documentation: its Python runs, its links lead somewhere, and its reference has everything."""

import importlib
import itertools
import re
import shlex
import sys

import pytest
import yaml

import purejaxdqn
from docsite import hooks, notebooks, reference
from purejaxdqn.__main__ import COMMANDS
from purejaxdqn.config.reading import read_config
from purejaxdqn.core.config import config_keys
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.sweeps.points import grid_candidates, read_points
from tests.conftest import ROOT, SUITES_OF_CONFIGS, TINY

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages_of(nav):
    for entry in nav:
        (target,) = entry.values()
        yield from [target] if isinstance(target, str) else pages_of(target)


PAGES = list(pages_of(SITE["nav"]))
MADE = [f"notebooks/{path.stem}.md" for path in notebooks.paths()]
"""Pages that the site makes of notebooks."""
WRITTEN = [ROOT / "README.md", *(DOCS / page for page in PAGES if page not in MADE), ROOT / "benchmarks" / "README.md"]
"""In the order in which a reader meets them."""


def blocks_of(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


COMMAND_LINES = [
    (str(path.relative_to(ROOT)), shlex.split(line, comments=True))
    for path in WRITTEN
    for block in blocks_of(path.read_text(encoding="utf-8"), "bash")
    for line in block.splitlines()
]


COMMAND = re.compile(r"^(?:.*&& )?(?:python -m )?purejaxdqn[. ]((?:train|search|sweep) .*--config .*)", re.MULTILINE)
MADE_BY_READERS = ["walk.yaml"]
"""Configs that a page makes."""
CONFIGS = sorted(
    words
    for words in {
        tuple(shlex.split(line, comments=True))
        for path in WRITTEN
        for line in COMMAND.findall(path.read_text(encoding="utf-8"))
    }
    if not set(words) & {"NAME", *MADE_BY_READERS}
)
"""The commands of all pages that read shipped configs."""


@pytest.mark.parametrize("words", CONFIGS, ids=shlex.join)
def test_the_config_of_a_command_can_be_trained(words):
    names = [word for before, word in itertools.pairwise(words) if before == "--config"]
    overrides = [word for word in words if re.match(r"[a-z_.]+=", word)]
    compared = [name for before, word in itertools.pairwise(words) if before == "--configs" for name in word.split(",")]
    suites = [suite_of(word.removeprefix("env.id=")) for word in overrides if word.startswith("env.id=")]
    for suite in [*suites, *(SUITES_OF_CONFIGS.get(name.removesuffix(".yaml")) for name in names)]:
        if suite and not is_installed(suite):
            pytest.skip(f"{suite} is not installed")
    grid = grid_candidates(names, overrides, compared) if words[0] == "sweep" else []
    for draft in read_points(grid) if grid else [read_config(names, overrides)]:
        draft.checked()


def test_there_are_commands_with_presets():
    assert sum(words.count("--config") > 1 for words in CONFIGS) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    ["docs/agents.md", "docs/parts.md", "docs/python.md", "docs/own-environment.md", "docs/own-suite.md", "README.md"],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys, barely_compiled):
    """On a tiny config. A block that begins with ``# NAME.EXTENSION`` is that file, in the working directory."""
    load_config = purejaxdqn.load_config
    monkeypatch.setattr(purejaxdqn, "load_config", lambda name, *words, **values: load_config(name, TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (ROOT / page).read_text(encoding="utf-8")
    names: dict = {}
    returns = []
    for block in blocks_of(text, "(?:python|yaml)"):
        file = re.match(r"# (\w+\.\w+)\n", block)
        if file:
            (tmp_path / file[1]).write_text(block, encoding="utf-8")
            importlib.invalidate_caches()
        elif re.search(r"^(?:import|from|\w+ = )", block, re.MULTILINE):
            assert block.count("\n") < 30
            exec(block, names)
            returns += capsys.readouterr().out.splitlines()
    assert returns and all(re.fullmatch(r"-?\d[\d.e+-]*(?: \[.*\])?", line) for line in returns)
    sys.modules.pop("my_envs", None)


def test_every_page_is_in_the_navigation_once():
    assert sorted(PAGES) == sorted([*MADE, *(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])


def test_links_between_pages_and_files_lead_somewhere():
    for path in WRITTEN:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", path.read_text(encoding="utf-8")):
            place = path.parent / "".join(target)
            assert place.exists() or place in [DOCS / page for page in MADE], f"{path.name}: {target}"


@pytest.mark.parametrize("place", range(len(COMMAND_LINES)), ids=lambda place: shlex.join(COMMAND_LINES[place][1]))
def test_a_directory_that_a_command_takes_was_made_by_one_above(place):
    words = COMMAND_LINES[place][1]
    taken = {word for word in words if word.startswith("runs/")} - words_after("--out", [words])
    assert taken <= words_after("--out", [words for _, words in COMMAND_LINES[:place]])


def words_after(option, commands):
    return {word for words in commands for before, word in itertools.pairwise(words) if before == option}


def test_there_are_commands_that_take_a_directory():
    assert sum("runs/cartpole/first" in words for _, words in COMMAND_LINES) > 8


def test_no_two_commands_of_a_page_write_the_same_directory():
    for _, lines in itertools.groupby(COMMAND_LINES, lambda line: line[0]):
        written = [word for _, words in lines for word in words_after("--out", [words])]
        assert len(written) == len(set(written))


def test_the_reference_has_a_sentence_for_every_config_key():
    assert set(reference.SENTENCES) == set(config_keys())
    assert all(sentence.endswith(".") for sentence in reference.SENTENCES.values())


def test_the_reference_has_every_config_key_with_its_default():
    text = reference.config_keys_table()
    assert all(f"| `{key}` |" in text for key in config_keys())
    assert "| `optimizer.learning_rate` | number > 0 | `0.00025` | yes | The learning rate. |" in text


def test_the_reference_has_every_command_and_no_html_by_accident():
    text = reference.commands()
    assert all(f"\n## {name}\n" in f"\n{text}" for name in COMMANDS)
    assert "| `--resume RUN_DIR` |" in text and "| `--objective final\\|auc` |" in text
    assert not re.search(r"^\|.*<\w", text, re.MULTILINE)


def test_a_link_out_of_the_docs_is_text_without_a_repository_and_a_link_with_one():
    def inside(text, repository):
        return hooks._LINK.sub(lambda link: hooks._inside(link, "guide/page.md", repository), text)

    link = "[`loop.py`](../../purejaxdqn/core/loop.py)"
    assert inside(link, None) == "`loop.py`"
    assert inside(link, "https://host/r/") == "[`loop.py`](https://host/r/blob/main/purejaxdqn/core/loop.py)"
    assert inside("[b](other.md#a)", None) == "[b](other.md#a)"
    assert inside("![c](../../benchmarks/results/peers.png)", None) == "![c](../figures/peers.png)"


def test_the_citation_has_the_version_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == purejaxdqn.__version__


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
