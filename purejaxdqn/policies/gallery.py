"""The trained agents that come with the package: exported folders in ``agents`` (``benchmarks/gallery.py``)."""

from pathlib import Path

from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.system.faults import UserError, did_you_mean

GALLERY = "agents"


def shipped_agents() -> dict[str, Path]:
    """The folders of the gallery by name."""
    package = Path(__file__).parents[1]
    inside = package / GALLERY  # in a wheel; in a checkout they are beside the package
    root = inside if inside.is_dir() else package.parent / GALLERY
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{DESCRIPTION_FILE}"))}


def find_agent(folder: Path) -> Path:
    """``folder``, or where there is none the agent of the gallery that it names: ``agents/NAME``.

    Raises:
      UserError: it is called ``agents/NAME``, and neither a folder nor an agent of the gallery.
    """
    try:
        is_named = not folder.is_absolute() and folder.parent == Path(GALLERY) and not folder.exists()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    if not is_named:
        return folder
    shipped = shipped_agents()
    if folder.name not in shipped:
        hint = did_you_mean(folder.name, shipped) or f"; shipped are {', '.join(shipped)}"
        raise UserError(f"{folder} is neither a folder nor an agent of the gallery{hint}")
    return shipped[folder.name]
