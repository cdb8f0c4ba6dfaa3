# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: pages of the repository's root become pages of the site, and links are followed there.

Pages are written to be read in the repository, where they link to files outside of ``docs/``. On the site such a link
leads to the page that was made of the file, or to the file in the repository where its address is known.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the root by the names of the pages that are made of them."""
SAME = {"docs/README.md": "index.md"}
"""Pages whose content is that of another one on the site."""
REPEATED = re.compile(r"(\]\([^)\s]*#[\w-]*\w)-(\d+)\)")
"""A link to the second heading of one name; mkdocs numbers such headings in another way than GitHub."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)((?:#[^)]*)?)\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of the root."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Let the links of a page lead to pages of the site, or into the repository."""
    sources = {made: name for name, made in ROOT_PAGES.items()}
    uri = page.file.src_uri
    return relinked(markdown, sources.get(uri, f"docs/{uri}"), uri, config["extra"]["repository"])


def relinked(markdown: str, source: str, uri: str, repository: str) -> str:
    """Return a page with links as they are on the site.

    Parameters
    ----------
    markdown : str
    source : str
        The page's file, as seen from the root of the repository.
    uri : str
        The page as seen from the root of the site's pages.
    repository : str
        Address of the repository; empty where it is not known.
    """

    def lead(match: re.Match[str]) -> str:
        target = match[2]
        if "://" in target or target.startswith(("mailto:", "#", "data:")):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        made = ROOT_PAGES.get(path) or SAME.get(path)
        if made is None and path.startswith("docs/"):
            made = path.removeprefix("docs/")
        if made is None:
            return f"[{match[1]}]({repository}/blob/main/{path}{match[3]})" if repository else match[1]
        return f"[{match[1]}]({os.path.relpath(made, posixpath.dirname(uri) or '.')}{match[3]})"

    return LINK.sub(lead, REPEATED.sub(r"\1_\2)", markdown))
