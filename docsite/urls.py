"""The project's addresses, from the one setting ``url`` in pyproject.toml; without it there are none."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """Adds ``[project.urls]`` to the metadata of a build."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Derive source, issues and changelog from the repository's address."""
        url = self.config["url"].rstrip("/")
        names = {"Source": "", "Issues": "/issues", "Changelog": "/blob/main/CHANGELOG.md"}
        metadata["urls"] = {name: url + path for name, path in names.items()} if url else {}
