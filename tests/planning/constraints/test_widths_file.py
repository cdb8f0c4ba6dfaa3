# SPDX-License-Identifier: Apache-2.0
"""Widths files: plain YAML or JSON, and nothing that could be meant in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from graphprune.errors import UsageError
from graphprune.planning.constraints.widths_file import read_widths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.yaml", "g003: 64\n/layer2/conv1/Conv: 96  # half\n"),
        ("w.yml", '{"g003": 64, "/layer2/conv1/Conv": 96}'),
        ("w.YAML", "---\n'g003': 64\n? /layer2/conv1/Conv\n: 96\n"),
        ("w.json", '{"g003": 64, "/layer2/conv1/Conv": 96}'),
    ],
)
def test_names_and_widths(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_widths(tmp_path / name) == {"g003": 64, "/layer2/conv1/Conv": 96}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.txt", "a: 1", "neither .yaml nor .json"),
        ("w.yaml", "a: 1\na: 1\n", "line 2: 'a' appears twice"),
        ("w.yaml", "a: [1, 2]", "the width of 'a' is a structure"),
        ("w.yaml", "a: 8.0", "the width of 'a' is '8.0'"),
        ("w.yaml", "a: '8'", "the width of 'a' is '8'"),
        ("w.yaml", "a: 0", "positive whole number"),
        ("w.yaml", "a: 0x10", "positive whole number"),
        ("w.yaml", "a: yes", "positive whole number"),
        ("w.yaml", "a: !!python/object/apply:os.getcwd []", "the width of 'a' is a structure"),
        ("w.yaml", "a: 99999999999", "positive whole number"),
        ("w.yaml", "- a\n- b\n", "no mapping"),
        ("w.yaml", "", "no mapping"),
        ("w.yaml", "[a]: 1", "a name is expected"),
        ("w.yaml", "a: 1\n---\nb: 2\n", "is not YAML"),
        ("w.yaml", "a: *nothing", "is not YAML"),
        ("w.yaml", "[" * 5000, "nested too deeply"),
        ("w.json", '{"a": 1, "a": 1}', "'a'"),
        ("w.json", '{"a": 1.0}', "integer"),
        ("w.json", '{"a": true}', "integer"),
        ("w.json", '{"a": 0}', "outside"),
        ("w.json", "[1]", "object"),
        ("w.json", "{", "is not JSON"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as raised:
        read_widths(tmp_path / name)
    assert message in raised.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "odd.yaml").write_bytes(b"a: \xff")
    (tmp_path / "folder.yaml").mkdir()
    for name, message in (
        ("none.yaml", "cannot read"),
        ("folder.yaml", "cannot read"),
        ("long.yaml", "larger than 1 MiB"),
        ("odd.yaml", "not UTF-8"),
        ("a\0b.yaml", "cannot read"),
    ):
        with pytest.raises(UsageError, match=message):
            read_widths(tmp_path / name)
