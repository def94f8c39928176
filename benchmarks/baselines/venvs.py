"""Virtual environments for contenders whose packages conflict with this project's, created on first use."""

import subprocess
import sys
import venv
from pathlib import Path


def interpreter(name: str, folder: Path | None = None) -> str:
    """Return the Python interpreter of a virtual environment with the packages that ``<name>.txt`` in this folder pins.

    Args:
      name: ``torch`` (with Stable-Baselines3) or ``rejax`` (with the gymnax version that it needs).
      folder: the virtual environment; None takes a folder in the user's cache directory.
    """
    import platformdirs

    folder = folder or platformdirs.user_cache_path("purejaxdqn") / "benchmarks" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    pins = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    if not done.exists() or done.read_text(encoding="utf-8") != pins:
        print(f"creating the virtual environment {folder}: a minute or two", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)  # replaces an incomplete one, too
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins.split()]
        subprocess.run(install, check=True)
        done.write_text(pins, encoding="utf-8")
    return str(python)
