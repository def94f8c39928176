"""The notebooks: they run, are stored with what they show, and become pages of the site."""

import json
import re

import pytest

from docsite import notebooks

PATHS = {path.stem: path for path in notebooks.paths()}
SMALL = "# Title\n\ntext"


def kinds(notebook):
    return [
        [kind for output in cell["outputs"] for kind in output.get("data", {output.get("name"): None})]
        for cell in notebooks.code_cells(notebook)
    ]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_are_three():
    assert sorted(PATHS) == ["first-run", "own-environment", "sweep-figure"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_a_notebook_runs_from_top_to_bottom_and_shows_what_is_stored(name):
    assert kinds(notebooks.run(PATHS[name])) == kinds(read(PATHS[name]))


@pytest.mark.parametrize("name", PATHS)
def test_a_notebook_is_small_and_as_jupyter_stores_it(name):
    notebook, text = read(PATHS[name]), PATHS[name].read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 4)
    assert text == notebooks.to_text(notebook)
    assert not re.search(r"/(?:home|root|tmp|work)/", text)
    for cell in notebook["cells"]:
        assert set(cell) == {"cell_type", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )


@pytest.mark.parametrize("name", PATHS)
def test_a_page_has_the_whole_notebook_and_its_links_lead_somewhere(name):
    page = notebooks.to_markdown(PATHS[name])
    for cell in read(PATHS[name])["cells"]:
        assert "".join(cell["source"]) in page
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page):
        assert (PATHS[name].parent / target).exists(), target


def cell(kind, source, **more):
    return {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True), **more}


def code(source):
    return cell("code", source, execution_count=None, outputs=[])


def test_cells_share_names_and_show_what_they_print_and_their_last_value(tmp_path):
    sources = ["x = 2\nprint('a')", "x + 1", "x;", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);", "None"]
    outputs = notebooks.run_cells({"cells": [cell("markdown", "# T"), *map(code, sources)]})
    shown = kinds({"cells": [code(source) | {"outputs": one} for source, one in zip(sources, outputs, strict=True)]})
    assert shown == [["stdout"], ["text/plain"], [], ["image/png"], []]
    assert outputs[0][0]["text"] == ["a\n"]
    assert outputs[1][0]["data"]["text/plain"] == ["3"]


def test_a_cell_that_fails_fails_the_notebook(tmp_path):
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps({"cells": [code("1 / 0")]}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"bad\.ipynb failed"):
        notebooks.run(path)


def test_outputs_are_shown_behind_their_cell(tmp_path):
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": "QUJD"}},
    ]
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": [cell("markdown", SMALL), code("f()") | {"outputs": outputs}]}))
    assert notebooks.to_markdown(path) == (
        "# Title\n\ntext\n\n*This page is a notebook: [download it](one.ipynb).*\n\n```python\nf()\n```\n\n"
        '```\na\nb\n```\n\n<img src="data:image/png;base64,QUJD" alt="What the cell above shows">\n'
    )
