# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of a page, and shows below each what it prints.

::

    python tools/run_page.py docs/tutorial.md            # writes what is printed into the page
    python tools/run_page.py docs/tutorial.md --check    # exit status 1 if something fails, or prints other words

Blocks marked ``sh`` and ``python`` run from top to bottom in an empty folder that has the examples of this checkout;
the blocks of Python are one program. A block without a mark directly below holds what was printed, and is replaced.
Figures may differ between processors, so ``--check`` compares words only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS = "110"


class Runner:
    """Runs blocks in a folder, one after the other.

    Parameters
    ----------
    folder : Path
        Where they run. Names of Python stay from block to block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, object] = {"__name__": "__main__"}
        scripts = str(Path(sys.executable).parent)
        self._environment = os.environ | {
            "PATH": os.pathsep.join((scripts, os.environ.get("PATH", ""))),
            "COLUMNS": COLUMNS,
            "NO_COLOR": "1",
        }

    def run(self, kind: str, text: str) -> str:
        """Return what a block prints on standard output.

        Raises
        ------
        RuntimeError
            If it fails.
        """
        return self._shell(text) if kind == "sh" else self._python(text)

    def _shell(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}:\n{text}{done.stdout}{done.stderr}")
        return done.stdout

    def _python(self, text: str) -> str:
        printed = io.StringIO()
        with contextlib.chdir(self._folder), contextlib.redirect_stdout(printed):
            exec(compile(text, "<page>", "exec"), self._names)  # noqa: S102  a page of this repository
        return printed.getvalue()


def refreshed(page: str, runner: Runner) -> str:
    """Return a page with what its blocks print now; only blocks that show something are followed by it."""
    parts: list[str] = []
    end = 0
    printed: str | None = None
    for block in BLOCK.finditer(page):
        between, kind, text = page[end : block.start()], block[1], block[2]
        parts.append(between)
        if kind in ("sh", "python"):
            printed = runner.run(kind, text)
            parts.append(block[0])
        elif kind == "" and printed is not None and between.strip() == "":
            shown = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
            parts.append(f"```\n{shown}\n```")
            printed = None
        else:
            parts.append(block[0])
        end = block.end()
    return "".join([*parts, page[end:]])


def words(page: str) -> list[str]:
    """Return the words of a page in alphabetical order.

    Figures, signs of alignment and space differ between processors, and so may the order of what is ranked by figures.
    """
    return sorted(re.sub(r"[-+\d.,%─>▁▂▃▄▅▆▇█]+(e[-+]?\d+)?", " ", page).split())


def main(argv: list[str] | None = None) -> int:
    """Run pages; write them, or compare words."""
    parser = argparse.ArgumentParser(description="Run the commands of pages.")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--check", action="store_true", help="only compare words")
    arguments = parser.parse_args(argv)
    status = 0
    for path in arguments.pages:
        page = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "examples", Path(folder) / "examples")
            now = refreshed(page, Runner(Path(folder)))
        if not arguments.check:
            path.write_text(now, encoding="utf-8")
        elif words(now) != words(page):
            print(f"{path} shows other words than its commands print; `python tools/run_page.py {path}` mends that")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
