"""The notebooks of ``docs/notebooks``: run from top to bottom, stored with their outputs, shown as pages of the site.

    python -m docsite.notebooks             runs all of them, and stores their outputs
    python -m docsite.notebooks --check     runs them and stores nothing; exits with code 1 where a cell fails

A notebook is run in a process of its own and in a directory that is removed, cell by cell, as Jupyter would: what is
printed is shown, and the value of a cell's last expression in the richest form that it has.
"""

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
FORMS = ("image/gif", "image/png", "text/html", "text/plain")
"""Forms of a value, the richest first; ``to_markdown`` shows each."""
LARGEST = 200_000
"""Bytes of an output that is stored; of a larger one the next form is."""


def paths() -> list[Path]:
    """The notebooks, in the order of their names."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def main() -> None:
    """Run the notebooks, or one of them in this process (``--run PATH``)."""
    words = sys.argv[1:]
    if words[:1] == ["--run"]:
        outputs = run_cells(json.loads(Path(words[1]).read_text(encoding="utf-8")))
        Path(words[2]).write_text(json.dumps(outputs), encoding="utf-8")
        return
    if set(words) - {"--check"}:
        sys.exit(f"error: {' '.join(words)} (see the top of docsite/notebooks.py)")
    for path in paths():
        notebook = run(path)
        if not words:
            path.write_text(to_text(notebook), encoding="utf-8")
        print(path.relative_to(ROOT))


def run(path: Path) -> dict[str, Any]:
    """Run a notebook in a new process -> the notebook with the outputs of its cells.

    Raises:
      SystemExit: a cell failed; its traceback has been printed.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "outputs.json"
        env = {
            **os.environ,
            "MPLBACKEND": "Agg",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "docsite.notebooks", "--run", str(path), str(found)]
        folder = Path(scratch) / "work"
        folder.mkdir()
        done = subprocess.run(command, cwd=folder, env=env, check=False)
        if done.returncode:
            raise SystemExit(f"{path} failed")
        outputs = json.loads(found.read_text(encoding="utf-8"))
    for cell, shown in zip(code_cells(notebook), outputs, strict=True):
        cell["outputs"] = shown
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that have code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cells(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run every cell in one namespace -> the outputs of each, in the notebook format."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run_cell("".join(cell["source"]), names) for cell in code_cells(notebook)]


def _run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    shows = bool(tree.body) and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = tree.body.pop() if shows else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    for kind, shown in [*([_richest(value)] if value is not None else []), *_figures()]:
        content = shown if kind.startswith("image/") else shown.splitlines(keepends=True)
        outputs.append({"output_type": "display_data", "metadata": {}, "data": {kind: content}})
    return outputs


def _figures() -> Iterator[tuple[str, str]]:
    """The figures that a cell has left open, which Jupyter shows and closes."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    from matplotlib import pyplot

    for number in pyplot.get_fignums():
        drawn = io.BytesIO()
        pyplot.figure(number).savefig(drawn, format="png", dpi=80)
        yield "image/png", base64.b64encode(drawn.getvalue()).decode()
    pyplot.close("all")


def _richest(value: Any) -> tuple[str, str]:
    """The richest form of a value that is small enough."""
    forms: dict[str, str] = {}
    if hasattr(value, "_repr_mimebundle_"):
        forms |= value._repr_mimebundle_()
    if getattr(value, "_repr_html_", None):
        forms["text/html"] = value._repr_html_()
    forms.setdefault("text/plain", repr(value))
    return next((kind, forms[kind]) for kind in FORMS if kind in forms and len(forms[kind]) <= LARGEST)


def to_text(notebook: dict[str, Any]) -> str:
    """A notebook as Jupyter stores it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def to_markdown(path: Path) -> str:
    """A notebook as a page: text, code, and the outputs that are stored in it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    link = f"*This page is a notebook: [download it]({path.name}).*"
    parts = [part for cell in notebook["cells"] for part in _cell_parts(cell)]
    return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"


def _cell_parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield f"```\n{''.join(output['text']).rstrip()}\n```"
        for kind, content in output.get("data", {}).items():
            text = "".join(content)
            if kind.startswith("image/"):
                yield f'<img src="data:{kind};base64,{text}" alt="What the cell above shows">'
            else:
                yield text if kind == "text/html" else f"```\n{text}\n```"


if __name__ == "__main__":
    main()
