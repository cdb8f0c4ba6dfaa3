#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a text direction classifier, recover it, and let it learn from the original, on rendered lines of text.

    python tools/distil_ocr.py ch_ppocr_mobile_v2.0_cls.onnx --flops 0.7
    python tools/distil_ocr.py ch_ppocr_mobile_v2.0_cls.onnx --flops 0.7 --alone

The model is that of PP-OCR: it is given a line of text, 48 pixels high and 192 wide, and says whether it stands upside
down. Lines of random characters in random fonts, sizes and colours, half of them upside down, are its own kind of
input and can be rendered without limit. Nothing is told which way a line stands; the original's outputs are all that is
learned from, and what is evaluated: on other lines, how often both decide alike, and how far the logarithms of the
probabilities are apart, squared and relative to how far the original's vary. With --alone nothing is learned from any
line: the network is recovered from its file alone, as `graphprune solve` does. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import string
from functools import cache
from pathlib import Path

import numpy as np
import torch
from distil_yolo import distil, outputs, recover_alone, relative_error
from PIL import Image, ImageDraw, ImageFont

import graphprune
from graphprune.api import AnalyzeOptions
from graphprune.data.signature import input_specs
from graphprune.training.finetune import FinetuneOptions

HEIGHT, WIDTH = 48, 192
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold")
CHARACTERS = string.ascii_letters + string.digits + " " * 8 + ".,:-/()"


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("--solver", default="uniform")
    parser.add_argument("--criterion", default="l1")
    parser.add_argument("--lines", type=int, default=2560, help="to learn from")
    parser.add_argument("--test", type=int, default=1000, help="lines to evaluate on")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="recover from the file alone, with no line")
    parser.add_argument("--save", type=Path, help="folder for the models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dense = graphprune.load(options.model)
    learned, _ = lines(dense, options.lines, (options.seed, 0))
    test, upright = lines(dense, options.test, (options.seed, 1))
    analysis = graphprune.analyze(dense, AnalyzeOptions({input_specs(dense)[0].name: (1, 3, HEIGHT, WIDTH)}))
    choices = graphprune.SolveOptions(options.solver, options.criterion, round_to=1, seed=options.seed)
    wanted = outputs(dense, test)

    def show(step: str, model: graphprune.Model, **facts: object) -> None:
        found = outputs(model, test)
        error = float(relative_error(found.clamp_min(1e-12).log(), wanted.clamp_min(1e-12).log()))
        alike = float((found.argmax(1) == wanted.argmax(1)).double().mean())
        right = float((found.argmax(1).numpy() != upright).mean())
        row = {"network": step, **facts, "error": round(error, 4), "alike": round(alike, 4), "right": round(right, 4)}
        print(json.dumps(row), flush=True)

    show("dense", dense, lines=len(test))
    if options.alone:
        recover_alone(options, analysis, choices, show)
        return
    settings = FinetuneOptions(options.epochs, batch=32, augment="none", seed=options.seed)
    distil(options, analysis, choices, learned, settings, show)


def lines(model: graphprune.Model, count: int, seed: tuple[int, ...]) -> tuple[graphprune.Source, np.ndarray]:
    """Return rendered lines, and which of them stand upright."""
    random = np.random.default_rng(seed)
    upright = random.random(count) < 0.5
    values = np.stack([rendered(random, upright=bool(each)) for each in upright])
    specs = input_specs(model)
    return graphprune.from_arrays("lines", specs, {specs[0].name: values}), upright


def rendered(random: np.random.Generator, *, upright: bool) -> np.ndarray:
    """Return a line as the network is given one: from -1 to 1, shape (3, height, width), zeros where it ends."""
    text = "".join(random.choice(list(CHARACTERS), random.integers(4, 16))).strip() or "-"
    face = font(FONTS[random.integers(len(FONTS))], int(random.integers(20, 37)))
    left, top, right, bottom = face.getbbox(text)
    edge = int(random.integers(1, 8))
    light, dark = (tuple(random.integers(*span, 3).tolist()) for span in ((150, 256), (0, 110)))
    paper, ink = (light, dark) if random.random() < 0.7 else (dark, light)
    image = Image.new("RGB", (right - left + 2 * edge, bottom - top + 2 * edge), paper)
    ImageDraw.Draw(image).text((edge - left, edge - top), text, font=face, fill=ink)
    image = image.rotate(random.uniform(-2, 2) + (0 if upright else 180), Image.Resampling.BILINEAR, fillcolor=paper)
    width = min(WIDTH, int(np.ceil(HEIGHT * image.width / image.height)))
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR)).astype(np.float32)
    pixels = np.clip(pixels + random.normal(0, random.uniform(0, 12), pixels.shape), 0, 255)
    line = np.zeros((3, HEIGHT, WIDTH), np.float32)
    line[:, :, :width] = pixels.transpose(2, 0, 1) / 127.5 - 1
    return line


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the DejaVu fonts, which matplotlib brings, too."""
    try:
        return ImageFont.truetype(f"{name}.ttf", size)
    except OSError:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), size)


if __name__ == "__main__":
    main()
