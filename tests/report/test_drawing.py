# SPDX-License-Identifier: Apache-2.0
"""Drawings: what is in them, that names cannot break out of them, and that every format is well formed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from tiny_models import model

import graphprune
from graphprune.errors import OutputError, UsageError
from graphprune.report.arcs import svg
from graphprune.report.dot import dot, laid_out
from graphprune.report.drawing import Arrow, Box, Drawing, draw
from graphprune.report.page import page
from graphprune.report.picture import save_drawing

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune import Analysis

RESIDUAL = """
(float[1,3,8,8] image) => (float[] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, second)
    f = Add (e, b)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    scores = Gemm <transB = 1> (h, head)
}
"""
WEIGHTS = {"stem": (6, 3, 3, 3), "first": (8, 6, 3, 3), "second": (6, 8, 3, 3), "head": (4, 6)}

NASTY = "</script></title><script>alert(1)</script>]]>\"'\\N\n\x00\u202e&amp;<!-- $boxes ${title} $$"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return graphprune.analyze(graphprune.load(model(RESIDUAL, WEIGHTS)))


@pytest.fixture(scope="module")
def drawing(analysis: Analysis) -> Drawing:
    return draw(analysis)


@pytest.fixture
def nasty(drawing: Drawing) -> Drawing:
    boxes = tuple(replace(box, title=NASTY, detail=NASTY, members=(NASTY, NASTY)) for box in drawing.boxes)
    arrows = tuple(replace(arrow, layers=(NASTY,)) for arrow in drawing.arrows)
    return Drawing(NASTY, drawing.flops, drawing.prunable, boxes, arrows)


def test_boxes_are_groups_and_what_is_frozen_in_the_order_of_the_network(drawing: Drawing) -> None:
    assert [(box.kind, box.title) for box in drawing.boxes] == [
        ("frozen", "graph input"),
        ("group", "a"),
        ("group", "c"),
        ("frozen", "graph output"),
    ]
    assert [box.width for box in drawing.boxes] == [3, 6, 8, 4]
    assert drawing.boxes[0].detail.startswith("belongs to the graph input 'image'")
    assert "stem axis 0 (out, Conv)" in drawing.boxes[1].members


def test_arrows_are_layers_and_share_all_flops(drawing: Drawing) -> None:
    start, stream, inner, end = (box.id for box in drawing.boxes)
    found = {(arrow.tail, arrow.head): arrow for arrow in drawing.arrows}
    assert set(found) == {(start, stream), (stream, inner), (inner, stream), (stream, end)}
    assert found[stream, inner].layers == ("c",)
    assert sum(arrow.flops for arrow in drawing.arrows) == pytest.approx(1)


FROZEN = """
(float[1,3,8,8] image) => (float[] y) {
    a = Conv (image, stem)
    b = Softmax <axis = 1> (a)
    c = Conv (b, deep)
    d = Softmax <axis = 1> (c)
    y = GlobalAveragePool (d)
}
"""


def test_weights_behind_a_frozen_axis_belong_to_it() -> None:
    found = draw(graphprune.analyze(graphprune.load(model(FROZEN, {"stem": (6, 3, 3, 3), "deep": (5, 6, 3, 3)}))))
    assert [(box.kind, box.title, box.width) for box in found.boxes] == [
        ("frozen", "graph input", 3),
        ("frozen", "Softmax", 6),
        ("frozen", "Softmax", 5),
    ]
    ids = [box.id for box in found.boxes]
    assert [(arrow.tail, arrow.head) for arrow in found.arrows] == list(pairwise(ids))
    assert found.boxes[1].members == ("a", "c")


def test_what_stands_between_no_two_boxes_is_drawn_once_per_kind() -> None:
    lines = [f"m{at} = Transpose <perm = [1, 0]> (image)\n p{at} = MatMul (image, m{at})" for at in range(3)]
    text = f"(float[4,6] image) => (float[] y) {{ {' '.join(lines)} q = Add (p0, p1) y = Add (q, p2) }}"
    found = draw(graphprune.analyze(graphprune.load(model(text))))
    assert found.arrows == ()
    assert len({box.title for box in found.boxes}) == len(found.boxes)


def test_a_picture_has_a_row_per_box_and_an_arc_per_arrow(drawing: Drawing) -> None:
    root = ElementTree.fromstring(svg(drawing))  # noqa: S314 - made by ourselves
    rows = [node for node in root.iter(f"{SVG}g") if "row" in node.get("class", "").split()]
    arcs = [node for node in root.iter(f"{SVG}path") if "arc" in node.get("class", "").split()]
    assert [row.get("data-box") for row in rows] == [box.id for box in drawing.boxes]
    assert len(arcs) == len(drawing.arrows)
    assert {(arc.get("data-from"), arc.get("data-to")) for arc in arcs} == {
        (arrow.tail, arrow.head) for arrow in drawing.arrows
    }
    assert "up" in "".join(arc.get("class", "") for arc in arcs)


def test_names_stay_text_in_a_picture(nasty: Drawing) -> None:
    text = svg(nasty)
    root = ElementTree.fromstring(text)  # noqa: S314 - made by ourselves
    assert not list(root.iter(f"{SVG}script"))
    assert "alert" in "".join(root.itertext())
    assert "\u202e" not in text


def test_names_stay_text_in_a_page(nasty: Drawing) -> None:
    text = page(nasty)
    assert len(re.findall("<script", text)) == 2
    assert len(re.findall("</script", text)) == 2
    assert len(re.findall("</title>", text)) == 2 + len(nasty.boxes) + len(nasty.arrows)
    data = re.search(r'<script type="application/json" id="boxes">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    boxes = json.loads(data[1])
    assert set(boxes) == {box.id for box in nasty.boxes}
    assert "\n" not in "".join(boxes[box.id]["name"] for box in nasty.boxes)


def test_a_page_loads_nothing(drawing: Drawing) -> None:
    text = page(drawing)
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?:", text)


def test_names_stay_text_for_graphviz(nasty: Drawing) -> None:
    strings = re.compile(r'"(?:[^"\\\n]|\\["\\n])*"')
    bare = strings.sub("", dot(nasty))
    assert "alert" not in bare
    assert '"' not in bare
    assert bare.count("{") == bare.count("}") == 1


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_lays_out_what_we_write(drawing: Drawing, nasty: Drawing) -> None:
    for found in (drawing, nasty):
        text = laid_out(found)
        assert text is not None
        root = ElementTree.fromstring(text)  # noqa: S314 - made by graphviz from our text
        assert len([node for node in root.iter(f"{SVG}g") if node.get("class") == "node"]) == len(found.boxes)


def test_without_graphviz_the_picture_is_ours(
    drawing: Drawing, analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert laid_out(drawing) is None
    path = save_drawing(analysis, tmp_path / "x.svg")
    assert path.read_text() == svg(drawing)


@pytest.mark.parametrize(
    "trouble", [OSError(), subprocess.TimeoutExpired("dot", 1), subprocess.CalledProcessError(1, "dot")]
)
def test_trouble_with_graphviz_is_no_trouble(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr("shutil.which", lambda _: "dot")
    monkeypatch.setattr("subprocess.run", fail)
    assert laid_out(drawing) is None


def test_many_groups_are_drawn_by_us_and_stay_small() -> None:
    boxes = tuple(Box(f"g{at:03d}", "group", f"layer {at}", "", 64, 0.01, at % 7 > 0, ()) for at in range(500))
    arrows = tuple(Arrow(a.id, b.id, 0.001, ("x",)) for a, b in pairwise(boxes))
    many = Drawing("many", 10**9, 0.5, boxes, arrows)
    assert laid_out(many) is None
    ElementTree.fromstring(svg(many))  # noqa: S314 - made by ourselves
    assert len(svg(many)) < 1000 * len(boxes) + 400 * len(arrows)


def test_a_model_without_layers_is_drawn_too() -> None:
    found = draw(graphprune.analyze(graphprune.load(model("(float[2,8] x) => (float[] y) { y = Relu (x) }"))))
    assert found.boxes == ()
    ElementTree.fromstring(svg(found))  # noqa: S314 - made by ourselves
    assert "</html>" in page(found)
    assert dot(found).endswith("}\n")


def test_the_ending_of_the_name_says_the_format(analysis: Analysis, tmp_path: Path) -> None:
    assert save_drawing(analysis, tmp_path / "x.HTML").read_bytes().startswith(b"<!DOCTYPE html>")
    assert save_drawing(analysis, str(tmp_path / "x.dot")).read_bytes().startswith(b"digraph")
    with pytest.raises(UsageError, match=r"'x\.pdf'"):
        save_drawing(analysis, tmp_path / "x.pdf")
    with pytest.raises(OutputError, match="exists"):
        save_drawing(analysis, tmp_path / "x.dot")
    assert save_drawing(analysis, tmp_path / "x.dot", force=True).exists()


def test_equal_models_give_equal_drawings(drawing: Drawing) -> None:
    again = draw(graphprune.analyze(graphprune.load(model(RESIDUAL, WEIGHTS))))
    assert again == drawing
    assert (page(again), svg(again), dot(again)) == (page(drawing), svg(drawing), dot(drawing))
