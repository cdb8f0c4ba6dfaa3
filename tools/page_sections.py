# SPDX-License-Identifier: Apache-2.0
"""Sections of pages that tools write: everything under one heading, up to the next one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["replace_section"]


def replace_section(page: Path, heading: str, text: str) -> None:
    """Replace what stands under a heading of a page; a heading that is not there yet comes last.

    Parameters
    ----------
    page : Path
    heading : str
        With its marks: ``"## In other runtimes"``.
    text : str
        What is to stand under it.
    """
    lines = page.read_text("utf-8").rstrip("\n").split("\n")
    if heading not in lines:
        lines += ["", heading]
    start = lines.index(heading)
    ends = (number for number in range(start + 1, len(lines)) if lines[number].startswith("#"))
    end = next(ends, len(lines))
    after = ["", *lines[end:]] if end < len(lines) else []
    page.write_text("\n".join([*lines[: start + 1], "", text.strip("\n"), *after]) + "\n", "utf-8")
