# SPDX-License-Identifier: Apache-2.0
"""Pictures of the report for the documentation, taken by a browser without a window.

::

    python tools/screenshots.py docs/images          # needs Chromium, and the extra `report`

Prunes the example, draws its report, and takes one picture in light and one in dark. Colours are reduced to a palette,
so that each stays below 100 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIZE = (1180, 1000)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of the report.")
    parser.add_argument("folder", type=Path, help="where they go")
    folder = parser.parse_args().folder
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch, "report.html")
        solve = [
            "solve",
            str(ROOT / "examples/digits.onnx"),
            "--flops",
            "0.5",
            "--round-to",
            "8",
            "--report",
            str(page),
        ]
        solve += ["-o", f"{scratch}/pruned.onnx", "--plan", f"{scratch}/plan.json"]
        subprocess.run([sys.executable, "-m", "graphprune", *solve], check=True, stdout=subprocess.DEVNULL)
        for name, flags in (("report.png", []), ("report_dark.png", ["--force-dark-mode"])):
            (folder / name).write_bytes(picture(browser, page, Path(scratch), flags))
            print(folder / name)
    return 0


def picture(browser: str, page: Path, scratch: Path, flags: list[str]) -> bytes:
    """Return a page as a browser shows it, as a PNG of few colours."""
    shot = scratch / "shot.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", *flags]
    command += [f"--user-data-dir={scratch / 'profile'}", f"--window-size={SIZE[0]},{SIZE[1]}"]
    command += ["--virtual-time-budget=10000", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    out = io.BytesIO()
    with Image.open(shot) as image:
        image.convert("RGB").quantize(64).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
