"""MkDocs hooks: tables, figures and reference pages come from the results and the code when the site is built.

In a page of ``docs/``

- ``<!-- NAME ... -->`` is replaced by the table of ``benchmarks/results/NAME.csv`` (``benchmarks/readme.py``), or by
  what the function NAME of ``GENERATED`` returns;
- an image of ``benchmarks/results`` becomes a file of the site;
- a link to a file of the repository that is not a page becomes a link to ``repo_url``, or plain text without one;
- ``git clone ADDRESS`` has ``repo_url``, and the sentence that explains ADDRESS is left out, unless there is none.
"""

import posixpath
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the command ``mkdocs`` does not look in the working directory

from benchmarks import gallery, readme
from benchmarks.pictures import RESULTS
from docsite import notebooks, reference, targets

GENERATED = {
    "commands": reference.commands,
    "config_keys": reference.config_keys_table,
    "environments": reference.environments,
    "agents": gallery.page,
    "first_hour_targets": targets.first_hour,
    "changelog": lambda: (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
}
EXPLANATION = ". `ADDRESS` stands for the address of the repository:\n"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Take the repository's address from pyproject.toml; without one, source files are named and not linked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    config.repo_url = project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["url"] or None
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the benchmarks' pictures and the gallery's films as ``figures/NAME``, and the notebooks' pages."""
    from mkdocs.structure.files import File

    for path in sorted([*RESULTS.glob("*.png"), *gallery.AGENTS_DIRECTORY.glob("*/*.gif")]):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    for path in notebooks.paths():
        page = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, page, content=notebooks.to_markdown(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page with everything filled in."""
    for name, generate in GENERATED.items():
        marker = f"<!-- {name} -->\n"
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    filled = re.sub(r"^<!-- (?:(?!-->).)* -->\n|<!-- .*? -->", "", readme.fill(markdown), flags=re.MULTILINE)
    if config.repo_url:
        filled = with_address(filled, config.repo_url)
    return _LINK.sub(lambda link: _inside(link, page.file.src_uri, config.repo_url), filled)


def with_address(markdown: str, repo_url: str) -> str:
    """Return a page with the repository's address in its instructions."""
    return markdown.replace(EXPLANATION, ":\n").replace("git clone ADDRESS", f"git clone {repo_url}")


def _inside(link: re.Match[str], page: str, repo_url: str | None) -> str:
    """Return a link of a page as it is on the site."""
    image, text, target, anchor = link.groups()
    at = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    if ":" in target or at.startswith("docs/"):
        return link[0]
    if image:
        figure = posixpath.relpath(f"figures/{posixpath.basename(at)}", posixpath.dirname(page) or ".")
        return f"![{text}]({figure})"
    return f"[{text}]({repo_url.rstrip('/')}/blob/main/{at}{anchor or ''})" if repo_url else text
