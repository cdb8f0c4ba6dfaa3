# SPDX-License-Identifier: Apache-2.0
"""Marks are claims, not proofs: what a file says of its plan and of its channels must be what the plan says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from graphprune.errors import VerificationError, quote
from graphprune.surgery.marks import KEPT, PLAN, VERIFIED, weights_changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

__all__ = ["check_marks"]


def check_marks(expected: Mapping[str, str], proto: ModelProto) -> None:
    """Compare the marks of a file with those that the surgery makes; marks that are not there claim nothing.

    Parameters
    ----------
    expected : mapping of str to str
        See :func:`graphprune.surgery.marks.marks`.
    proto : ModelProto
        Of the file.

    Raises
    ------
    VerificationError
        If the file names another plan or other channels, or says that it was verified although its weights were
        changed afterwards.
    """
    said = {entry.key: entry.value for entry in proto.metadata_props}
    if len(said) < len(proto.metadata_props):
        twice = next(key for key in said if sum(entry.key == key for entry in proto.metadata_props) > 1)
        if twice in (PLAN, KEPT, VERIFIED):
            raise VerificationError(f"the metadata of the file has {quote(twice)} twice")
    if said.get(PLAN, expected[PLAN]) != expected[PLAN]:
        raise VerificationError(f"the file was made from another plan, with the digest {quote(said[PLAN])}")
    if KEPT in said and not _same(said[KEPT], expected[KEPT]):
        raise VerificationError(f"the metadata {quote(KEPT)} of the file names other channels than the plan keeps")
    if weights_changed(proto) and said.get(VERIFIED, "") == "true":
        raise VerificationError("the file says that it was verified, and that its weights were changed afterwards")


def _same(said: str, expected: str) -> bool:
    try:
        return bool(json.loads(said) == json.loads(expected))
    except (ValueError, RecursionError):
        return False
