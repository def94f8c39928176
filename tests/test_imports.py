"""The architecture: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "purejaxdqn"
LEAVES = ("environments", "networks", "heads", "bootstrap", "normalization", "sum_tree", "draws")
CORE = sorted((PACKAGE / "core").glob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_knows_nothing_of_the_host(path):
    names = set(imports(path))
    assert not [name for name in names if name.startswith("purejaxdqn") and not name.startswith("purejaxdqn.core")]
    assert not names & {"os", "pathlib", "yaml", "matplotlib", "rich", "time", "subprocess", "json", "csv"}


@pytest.mark.parametrize(
    ("name", "allowed"), [*((name, {"types"}) for name in LEAVES), ("replay", {"types", "sum_tree"})]
)
def test_a_leaf_imports_types_alone(name, allowed):
    """But for replay, one half of which is its sum tree."""
    ours = {one for one in imports(PACKAGE / "core" / f"{name}.py") if one.startswith("purejaxdqn")}
    assert ours <= {"purejaxdqn.core", *(f"purejaxdqn.core.{one}" for one in allowed)}


@pytest.mark.parametrize(("library", "home"), [("gymnax", "environments"), ("flashbax", "replay")])
def test_each_library_has_one_door(library, home):
    users = {path.stem for path in PACKAGE.rglob("*.py") if any(one.split(".")[0] == library for one in imports(path))}
    assert users <= {home}


def test_importing_the_package_loads_nothing_slow_and_starts_nothing():
    code = (
        "import sys, purejaxdqn; assert 'jax' not in sys.modules\n"
        "from purejaxdqn import configure_cpu, load_config, make_train, run_many\n"
        "assert not {'matplotlib', 'scipy', 'pandas', 'gymnax'} & set(sys.modules)\n"
        "configure_cpu(devices=3)\n"
        "import jax; assert len(jax.devices()) == 3\n"
        "load_config('cartpole_cleanrl')\n"
        "assert 'gymnax' in sys.modules and not {'matplotlib.pyplot', 'seaborn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
