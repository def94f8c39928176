"""The architecture: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "purejaxdqn"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize(("library", "home"), [("gymnax", "registry"), ("flashbax", "replay")])
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
