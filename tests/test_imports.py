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
        "import sys, purejaxdqn; assert 'jax' not in sys.modules\n"
        "from purejaxdqn import configure_cpu, load_config, make_train, run_many\n"
        "assert not {'matplotlib', 'scipy', 'pandas', 'gymnax'} & set(sys.modules)\n"
        "configure_cpu(devices=3)\n"
        "import jax; assert len(jax.devices()) == 3\n"
        "load_config('cartpole_cleanrl')\n"
        "assert 'gymnax' in sys.modules and not {'matplotlib.pyplot', 'seaborn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
