"""The architecture: who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "purejaxdqn"
OURS = sorted(path for name in ("purejaxdqn", "tests", "benchmarks") for path in (ROOT / name).rglob("*.py"))
LADDER = (
    ("core",),
    ("dqn", "environments"),
    ("system",),
    ("config",),
    ("policies",),
    ("runs",),
    ("sweeps",),
    ("searches",),
    ("pictures",),
)
"""Folders from the bottom to the top; those of one step do not know each other. The commands stand on all of them."""
STEPS = {folder: step for step, folders in enumerate(LADDER) for folder in folders}
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
NO_CORE = {"os", "sys", "pathlib", "importlib", "inspect", "subprocess", "threading", "signal", "time", "io", "json"}
NO_CORE |= {"csv", "yaml", "matplotlib", "rich", "gymnax", "gymnasium", "flashbax", "flax", "optuna", "orbax"}
"""Host modules and suites that the pure core does without."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def folders_imported(path):
    """The folders of the package that a module imports from, late imports included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "purejaxdqn":
            yield from (alias.name for alias in node.names if alias.name in STEPS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("purejaxdqn."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("purejaxdqn."))


def test_every_folder_stands_on_the_ladder():
    assert sorted(STEPS) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_down_the_ladder(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        for other in folders_imported(path):
            assert other == folder or STEPS[other] < STEPS[folder], f"{path.relative_to(PACKAGE)} imports {other}"


def test_the_ladder_is_seen_from_inside_functions_too(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from purejaxdqn.sweeps import points\n    import purejaxdqn.runs.training\n")
    assert list(folders_imported(module)) == ["sweeps", "runs"]


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.stem)
def test_the_core_does_without_the_host(path):
    assert not {name.split(".")[0] for name in imports(path)} & NO_CORE


def test_the_loop_makes_neither_algorithm_nor_environment():
    ours = {
        name.removeprefix("purejaxdqn.core.") for name in imports(PACKAGE / "core" / "loop.py") if "purejaxdqn" in name
    }
    parts = {"algorithm", "config", "draws", "environment", "evaluation", "plan", "rollout", "schedules", "types"}
    assert ours == parts


@pytest.mark.parametrize(("library", "home"), [("gymnax", "environments/gymnax.py"), ("flashbax", "dqn/rows.py")])
def test_each_library_has_one_door(library, home):
    users = {path for path in PACKAGE.rglob("*.py") if any(one.split(".")[0] == library for one in imports(path))}
    assert users <= {PACKAGE / home}


def nodes(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_no_library_is_asked_for_what_it_keeps_to_itself():
    """What JAX has for extensions counts too: another release may lack it."""
    named = {name for path in OURS for name in imports(path)}
    for path in OURS:
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute):
                named.add(ast.unparse(node))
    assert {"jax.export", "jax.sharding.Mesh", "jax.numpy", "jax.lax.scan"} <= named
    assert not [name for name in named if re.match(r"jax\.(core|extend|interpreters|lib)\b|(\w+\.)+_src\b", name)]


def test_an_option_of_the_compiler_is_named_in_one_place():
    named = {(node.value, path.name) for path in OURS for node in nodes(path) if isinstance(node, ast.Constant)}
    options = sorted(name for name, _ in named if isinstance(name, str) and re.fullmatch(r"(--)?xla_\w+=?.*", name))
    assert len(options) == len(set(options)) >= 5, options


def test_importing_the_package_loads_nothing_slow_and_starts_nothing():
    code = (
        "import sys, purejaxdqn; from purejaxdqn import UserError; assert 'jax' not in sys.modules\n"
        "from purejaxdqn import configure_cpu, load_config, make_train, run_many\n"
        "assert not {'matplotlib', 'scipy', 'pandas', 'gymnax'} & set(sys.modules)\n"
        "configure_cpu(devices=3)\n"
        "import jax; assert len(jax.devices()) == 3\n"
        "load_config('cartpole_cleanrl')\n"
        "assert 'gymnax' in sys.modules and not {'matplotlib', 'seaborn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
