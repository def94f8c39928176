"""The documentation: its Python runs, its links lead somewhere, and its reference has everything."""

import ast
import contextlib
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import sys
import tomllib
from importlib import import_module

import jax
import pytest
import yaml

import purejaxdqn
from docsite import hooks, notebooks, reference
from docsite.urls import ProjectUrls
from purejaxdqn.__main__ import COMMANDS
from purejaxdqn.config.reading import read_config, shipped_configs
from purejaxdqn.core.config import config_keys
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.sweeps.points import drawn_candidates, grid_candidates, read_points
from purejaxdqn.sweeps.spaces import read_space
from tests.conftest import ROOT, SUITES_OF_CONFIGS, TINY, tiny_for

DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
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


def blocks_of(text, *languages):
    """The blocks of a page in these languages, "" for a block without one; in all if none is given."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in blocks if not languages or language in languages]


def code_of(text):
    """The code of a page: its blocks, and what stands between backticks in its sentences."""
    sentences = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*blocks_of(text), *(code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", sentences))]


COMMAND_LINES = [
    (str(path.relative_to(ROOT)), shlex.split(line, comments=True))
    for path in WRITTEN
    for block in blocks_of(path.read_text(encoding="utf-8"), "bash")
    for line in block.splitlines()
]


COMMAND = re.compile(rf"(?:python -m purejaxdqn\.|purejaxdqn )({'|'.join(COMMANDS)})(?![\w.:])([^`\n]*)")
COMMANDS_OF_PAGES = sorted(
    {
        tuple(shlex.split("".join(words), comments=True))
        for path in WRITTEN
        for code in code_of(path.read_text(encoding="utf-8"))
        for words in COMMAND.findall(code)
    }
)
"""The commands of all pages, in blocks and in sentences: the name of one and its words."""
MADE_BY_READERS = ["walk.yaml", "NAME", "env.id=navix_worlds:empty_5x5"]
"""Configs and environments that a page makes, and what stands for one."""
CONFIGS = [words for words in COMMANDS_OF_PAGES if "--config" in words and not set(words) & set(MADE_BY_READERS)]
"""Those that read shipped configs."""


@pytest.mark.parametrize("words", COMMANDS_OF_PAGES, ids=shlex.join)
def test_a_command_has_only_options_of_its_own_and_keys_that_exist(words):
    parser = import_module(f"purejaxdqn.{words[0]}").parser()
    with contextlib.suppress(SystemExit):  # --help and --version
        arguments = parser.parse_intermixed_args(words[1:])
        overrides = [word for word in getattr(arguments, "overrides", []) if word not in ("...", "key=value")]
        if words[0] in ("train", "search"):
            read_config([], overrides).unchecked()


@pytest.mark.parametrize("words", CONFIGS, ids=shlex.join)
def test_the_config_of_a_command_can_be_trained(words):
    names = [word for before, word in itertools.pairwise(words) if before == "--config"]
    overrides = [word for word in words if re.match(r"[a-z_.]+=", word)]
    compared = [name for before, word in itertools.pairwise(words) if before == "--configs" for name in word.split(",")]
    suites = [suite_of(word.removeprefix("env.id=")) for word in overrides if word.startswith("env.id=")]
    for suite in [*suites, *(SUITES_OF_CONFIGS.get(name.removesuffix(".yaml")) for name in names)]:
        if suite and not is_installed(suite):
            pytest.skip(f"{suite} is not installed")
    for space in words_after("--space", [words]):
        assert read_space(space)
    grid = grid_candidates(names, overrides, compared) if words[0] == "sweep" else []
    for draft in read_points(grid) if grid else [read_config(names, overrides)]:
        draft.checked()


def test_there_are_commands_with_presets():
    assert sum(words.count("--config") > 1 for words in CONFIGS) > 5


def test_what_a_page_says_is_moved_is_moved():
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    (words,) = [words for words in CONFIGS if "checkpoint.every=20_000" in words]
    assert blocks_of(text, "text")[-1] == read_config(words[2], words[3:]).moves + "\n"


def test_commands_of_every_kind_are_found():
    assert {words[0] for words in COMMANDS_OF_PAGES} == {*COMMANDS}
    assert any("--gif" in words for words in COMMANDS_OF_PAGES) and len(CONFIGS) > 10


PYTHON = {
    str(path.relative_to(ROOT)): blocks
    for path in WRITTEN
    if (blocks := blocks_of(path.read_text(encoding="utf-8"), "python", "yaml"))
}
"""The blocks of each page that has Python or YAML."""
NOT_INSTALLED = ["navix_worlds.py"]
"""Files of pages that import what no extra installs; they have tests of their own, and are else only compiled."""


def file_of(block):
    """The name of the file that a block is: its first line is ``# NAME.EXTENSION``."""
    named = re.match(r"# (\w+\.\w+)\n", block)
    return named[1] if named else ""


def is_python(block):
    return file_of(block).endswith(".py") or bool(re.search(r"^(?:import|from|\w+ = )", block, re.MULTILINE))


RUN = [page for page, blocks in PYTHON.items() if any(is_python(block) for block in blocks)]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys, barely_compiled, jitted_barely):
    """On tiny configs. A block that is a file is put into the working directory."""
    load_config = purejaxdqn.load_config

    def load_tiny(name, *words, **values):
        load_config(name, *words, **values)
        tiny = tiny_for(name) if name in shipped_configs() else TINY
        keys = [word.partition("=")[0] for word in tiny]
        return load_config(name, *words, tiny, **{key: value for key, value in values.items() if key not in keys})

    monkeypatch.setattr(purejaxdqn, "load_config", load_tiny)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict = {}
    returns = []
    for block in PYTHON[page]:
        if file_of(block):
            (tmp_path / file_of(block)).write_text(block, encoding="utf-8")
            importlib.invalidate_caches()
        elif is_python(block):
            assert block.count("\n") < 30
            exec(block, names)
            returns += capsys.readouterr().out.splitlines()
    assert returns and all(re.fullmatch(r"-?\d[\d.e+-]*(?: \[.*\])?", line) for line in returns)
    for block in PYTHON[page]:
        sys.modules.pop(file_of(block).removesuffix(".py"), None)


@pytest.mark.slow
def test_the_adapter_of_navix_trains(tmp_path, monkeypatch, barely_compiled, jitted_barely):
    """The only file of a page that needs a package which no extra installs; `.ci/run` installs it."""
    if importlib.util.find_spec("navix") is None:
        pytest.skip("navix is not installed")
    (block,) = [block for block in PYTHON["docs/own-suite.md"] if file_of(block) == "navix_worlds.py"]
    (tmp_path / "navix_worlds.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = purejaxdqn.load_config("cartpole_cleanrl", [*TINY, "env.id=navix_worlds:empty_5x5", "env.one_hot=true"])
    trained = jax.jit(purejaxdqn.make_train(config))(config.hparams(), jax.random.key(0))
    assert ((trained.final_returns >= 0) & (trained.final_returns <= 1)).all()
    sys.modules.pop("navix_worlds", None)


def test_pages_with_python_are_found():
    assert {"README.md", "docs/memory.md", "docs/own-environment.md", "docs/python.md"} <= {*RUN}
    files = {file_of(block) for blocks in PYTHON.values() for block in blocks}
    assert {"walk.yaml", *NOT_INSTALLED} <= files


@pytest.mark.parametrize("page", PYTHON)
def test_the_blocks_of_a_page_are_python_or_configs_that_can_be_read(page, tmp_path):
    for block in PYTHON[page]:
        path = tmp_path / (file_of(block) or "block.yaml")
        snippet = re.fullmatch(r'--8<-- "(.+)"\n', block)
        path.write_text((ROOT / snippet[1]).read_text(encoding="utf-8") if snippet else block, encoding="utf-8")
        if path.name == "space.yaml":
            space = read_space(path)
            for draft in read_points(drawn_candidates(["cartpole_cleanrl"], [], space, [[0.3] * len(space)])):
                draft.checked()
        elif is_python(block):
            ast.parse(block)
        else:
            read_config(path).unchecked()


@pytest.mark.parametrize("page", RUN)
def test_the_configs_that_a_page_loads_in_python_can_be_loaded(page, tmp_path):
    """As the page has them; ``test_the_code_of_a_page_runs`` makes them small."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [block for block in PYTHON[page] if is_python(block)]
    sentences = [code for code in code_of(text) if re.match(r"load_config\(.*\)$", code)]
    for call in itertools.chain.from_iterable(ast.walk(ast.parse(code)) for code in [*blocks, *sentences]):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "load_config":
            given = [ast.literal_eval(one) for one in call.args]
            values = [
                ast.literal_eval(one.value) if one.arg is None else {one.arg: ast.literal_eval(one.value)}
                for one in call.keywords
            ]
            if given[0] not in MADE_BY_READERS:
                purejaxdqn.load_config(*given, **{key: value for one in values for key, value in one.items()})


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_only_what_is_printed_or_drawn_has_no_language_that_a_test_reads(path):
    text = path.read_text(encoding="utf-8")
    fences = re.findall(r"^ *```(.*)$", text, re.MULTILINE)
    assert set(fences[::2]) <= {"bash", "python", "yaml", "text", ""} and set(fences[1::2]) <= {""}
    for block in blocks_of(text, "text", ""):
        assert not re.search(
            r"^(?:import |from |def |\w+ = |python -m |purejaxdqn |\w+(?:\.\w+)+: |\w+: \{)", block, re.MULTILINE
        )


def test_every_page_is_in_the_navigation_once():
    assert sorted(PAGES) == sorted([*MADE, *(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])


def test_the_text_of_a_box_is_indented_by_four_spaces():
    """More would make it code."""
    texts = [text for path in WRITTEN for text in re.findall(r"^!!! .*\n( +)", path.read_text("utf-8"), re.MULTILINE)]
    assert texts and set(texts) == {"    "}


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
        alone = [words for _, words in lines if "--coordinator" not in words]  # the others share it
        written = [word for words in alone for word in words_after("--out", [words])]
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


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = {name.rpartition(".")[2] for name in re.findall(r"^(?:::: |### )([\w.]+)$", text, re.MULTILINE)}
    assert {*purejaxdqn.__all__} <= named
    assert {"Policy", "Picture", "Memory", "Head", "Single", "batched", "iqm", "iqm_interval", "UserError"} <= named


def test_the_reference_has_every_file_of_a_run_and_every_key_of_its_summary(finished_run):
    text, _, studies = (DOCS / "reference" / "files.md").read_text(encoding="utf-8").partition("## A sweep directory")
    named = set(re.findall(r"`([^`]+)`", text))
    assert {path.name + "/" * path.is_dir() for path in finished_run.iterdir()} <= named
    assert set(json.loads((finished_run / "summary.json").read_text(encoding="utf-8"))) <= named
    assert set((finished_run / "metrics.csv").read_text(encoding="utf-8").split("\n")[0].split(",")) <= named
    assert studies


def test_a_link_out_of_the_docs_is_text_without_a_repository_and_a_link_with_one():
    def inside(text, repository):
        return hooks._LINK.sub(lambda link: hooks._inside(link, "guide/page.md", repository), text)

    link = "[`loop.py`](../../purejaxdqn/core/loop.py)"
    assert inside(link, None) == "`loop.py`"
    assert inside(link, "https://host/r/") == "[`loop.py`](https://host/r/blob/main/purejaxdqn/core/loop.py)"
    assert inside("[b](other.md#a)", None) == "[b](other.md#a)"
    assert inside("![c](../../benchmarks/results/peers.png)", None) == "![c](../figures/peers.png)"


def test_the_instructions_have_the_address_of_the_repository_if_there_is_one():
    page = (DOCS / "installation.md").read_text(encoding="utf-8")
    assert page.count("ADDRESS") == 2
    text = hooks.with_address(page, "https://host/r")
    assert "ADDRESS" not in text and "\ngit clone https://host/r purejaxdqn\n" in text
    assert "from a clone of its repository:\n" in text


@pytest.mark.parametrize("url", ["", "https://host/r", "https://host/r/"])
def test_one_setting_fills_the_addresses_of_the_metadata(url):
    metadata = {}
    ProjectUrls(str(ROOT), {"url": url}).update(metadata)
    made = {"Source": "https://host/r", "Issues": "https://host/r/issues"}
    made["Changelog"] = "https://host/r/blob/main/CHANGELOG.md"
    assert metadata == {"urls": made if url else {}}


def test_the_citation_has_the_version_of_the_package_its_date_and_the_address():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == purejaxdqn.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {cited['version']} ({cited['date-released']})\n" in changelog
    assert cited.get("repository-code", "") == PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["url"]


def test_a_source_distribution_has_the_files_that_pages_name():
    """The build adds the first three by itself."""
    built = {"README.md", "LICENSE", "pyproject.toml"}
    built |= {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    codes = [code for path in WRITTEN for code in code_of(path.read_text(encoding="utf-8"))]
    named = {word for code in codes for word in code.split() if "/" not in word and (ROOT / word).is_file()}
    assert "pins.txt" in named and named <= built


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
