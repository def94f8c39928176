"""The Python in the docs runs as it stands, block after block."""

import re

import pytest

from tests.conftest import ROOT, TINY


@pytest.mark.parametrize("page", ["parts.md"])
def test_the_code_of_a_page_runs(page, monkeypatch, capsys, compiled_quickly):
    """On a tiny config, which the page's own overrides do not change."""
    import purejaxdqn

    load_config = purejaxdqn.load_config
    monkeypatch.setattr(purejaxdqn, "load_config", lambda name, overrides: load_config(name, TINY))
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    assert all(block.count("\n") < 30 for block in blocks)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    returns = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(returns) == len(blocks) and all(one > 0 for one in returns)


def test_links_between_pages_and_files_lead_somewhere():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
