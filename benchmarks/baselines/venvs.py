"""Virtual environments for contenders that cannot live beside this project, made when they are first asked for."""

import subprocess
import sys
import venv
from pathlib import Path


def interpreter(name: str, folder: Path | None = None) -> str:
    """The interpreter of a virtual environment with exactly what ``<name>.txt`` beside this file pins.

    Args:
      name: ``torch`` (with Stable-Baselines3) or ``rejax`` (with the gymnax it needs).
      folder: where it is; the user's cache directory unless given.
    """
    import platformdirs

    folder = folder or platformdirs.user_cache_path("purejaxdqn") / "benchmarks" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    pins = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    if not done.exists() or done.read_text(encoding="utf-8") != pins:
        print(f"making {folder}, which takes a minute or two the first time", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)  # what a stop left half made too
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins.split()]
        subprocess.run(install, check=True)
        done.write_text(pins, encoding="utf-8")
    return str(python)
