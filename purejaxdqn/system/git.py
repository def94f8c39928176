"""Calls of git for one checkout."""

import os
import subprocess
from pathlib import Path


def run_git(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run git in ``checkout``, whatever repository the environment names.

    Git sets ``GIT_DIR`` and others for its hooks and aliases; with them it would answer about another repository.

    Raises:
      OSError: git is not installed.
      SubprocessError: it takes too long.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", *arguments], cwd=checkout, env=env, capture_output=True, timeout=60, check=False)
