# SPDX-License-Identifier: Apache-2.0
"""From ``torchvision:resnet18`` or ``package.module:factory`` to a torch module with its weights."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from typing import Any

from graphprune.data.user_code import FAILURES, imported, reason
from graphprune.errors import InputError, UsageError, did_you_mean, quote
from graphprune.extras import require
from graphprune.model.children.sandbox import shortened

require("train", "exporting from torch")
import torch  # noqa: E402 - where it is missing, the line above says what to install
from torch import nn  # noqa: E402

__all__ = ["load_weights", "make_module"]

_FORMS = "give torchvision:NAME, or package.module:factory for a function or class that returns a module"


def make_module(text: str) -> nn.Module:
    """Return the module that a text names, with the weights that its factory gives it.

    Raises
    ------
    UsageError
        If there is no such factory, or it makes no module.
    """
    place, colon, name = text.partition(":")
    if not (place and colon and name):
        raise UsageError(f"{quote(text)} names no module", hint=_FORMS)
    made = _torchvision(name) if place == "torchvision" else _called(text)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{quote(text)} makes {quote(type(made).__name__)}, which is no torch module", hint=_FORMS)
    return made


def _torchvision(name: str) -> Any:
    from torchvision import models

    try:
        builder = models.get_model_builder(name)
    except ValueError as error:
        hint = did_you_mean(name, models.list_models(), shown="torchvision:{}".format)
        raise UsageError(f"torchvision has no model {quote(name)}", hint=hint) from error
    known = inspect.signature(builder).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builder(
            **{key: None for key in ("weights", "weights_backbone") if key in known}
        )  # nothing is downloaded


def _called(text: str) -> Any:
    factory: Any = imported(text)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise UsageError(f"{quote(text)} is no function", hint=_FORMS)
    try:
        return factory()
    except FAILURES as error:
        raise UsageError(f"{quote(text)} cannot be called without arguments: {reason(error)}") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dictionary, from safetensors or from torch's own format without any code in it.

    Raises
    ------
    InputError
        If the file cannot be read, holds more than tensors, or does not fit the module.
    """
    shown = quote(os.fspath(path))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers raise whatever they like
        raise InputError(
            f"the weights {shown} cannot be read: {quote(str(error))}",
            hint="only files with nothing but tensors are read: save module.state_dict()",
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [""])[-1].strip()
        raise InputError(f"the weights {shown} do not fit the module: {shortened(first)}") from error
