# SPDX-License-Identifier: Apache-2.0
"""Phases: what graphprune is doing and how far it is, told to the logger "graphprune".

::

    logging.basicConfig(level=logging.INFO)      # or logging.DEBUG, which counts along
    graphprune.solve(model, flops=0.5)           # INFO:graphprune:solving: 0.02 s

    with graphprune.listening(lambda event: tracker.log(event.phase, event.figures)):
        graphprune.sweep(model, [0.7, 0.5])      # a hook for a tracker of experiments, or for a bar of one's own

Every record carries its :class:`Event` as the attribute ``event``. The command line listens to the same records: its
live line and ``--log`` are handlers of this logger, so there is one account of what goes on.
"""

from __future__ import annotations

import functools
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["LOGGER", "Event", "listening", "logged", "phase", "progress", "remark"]

P = ParamSpec("P")
R = TypeVar("R")

LOGGER = logging.getLogger("graphprune")
LOGGER.addHandler(logging.NullHandler())

_OPEN: ContextVar[tuple[_Phase, ...]] = ContextVar("open phases of graphprune", default=())


@dataclass(frozen=True)
class Event:
    """Something that happened in a phase.

    Attributes
    ----------
    phase : str
    kind : {"begin", "progress", "end", "failed", "remark"}
    step : str
        What is being done within the phase; or what is remarked.
    done, total : int or None
        How much of it is done, and how much there is to do.
    seconds : float
        Since the phase began.
    figures : mapping
        What came of it.
    error : str
        Why it failed: the message of what was raised.
    """

    phase: str
    kind: Literal["begin", "progress", "end", "failed", "remark"]
    step: str = ""
    done: int | None = None
    total: int | None = None
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def message(self) -> str:
        """The same for people."""
        if self.kind == "end":
            figures = "".join(f", {name} {_short(value)}" for name, value in self.figures.items())
            return f"{self.phase}: {self.seconds:.2f} s{figures}"
        if self.kind == "progress":
            return f"{self.step or self.phase}: {self.done} of {self.total}"
        failed = f"{self.phase} failed: {self.error}" if self.error else f"{self.phase} failed"
        return {"begin": f"{self.phase} begins", "failed": failed}.get(self.kind, self.step)


def _short(value: object) -> str:
    """Return a figure in a few characters."""
    if isinstance(value, list | tuple):
        return " -> ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class _Phase:
    """A phase that has begun and not ended."""

    name: str
    began: float
    figures: dict[str, Any] = field(default_factory=dict)

    def event(self, kind: Literal["begin", "progress", "end", "failed", "remark"], **facts: Any) -> Event:
        return Event(self.name, kind, seconds=time.perf_counter() - self.began, **facts)


@contextmanager
def phase(name: str) -> Iterator[dict[str, Any]]:
    """Tell that a phase begins, and that it ends; what is put into the yielded dict is told in the end.

    A phase within one of the same name is a part of it.
    """
    outer = _OPEN.get()
    if outer and outer[-1].name == name:
        yield outer[-1].figures
        return
    own = _Phase(name, time.perf_counter())
    token = _OPEN.set((*outer, own))
    _tell(logging.INFO, own.event("begin"))
    try:
        yield own.figures
    except BaseException as error:
        _tell(logging.INFO, own.event("failed", error=str(error) or type(error).__name__))
        raise
    else:
        _tell(logging.INFO, own.event("end", figures=own.figures))
    finally:
        _OPEN.reset(token)


def progress(done: int, total: int, step: str = "", **figures: Any) -> None:
    """Tell how far the innermost phase is."""
    if LOGGER.isEnabledFor(logging.DEBUG) and _OPEN.get():
        _tell(logging.DEBUG, _OPEN.get()[-1].event("progress", step=step, done=done, total=total, figures=figures))


class _Hook(logging.Handler):
    """Hands events on to a function."""

    def __init__(self, hook: Callable[[Event], object]) -> None:
        super().__init__(logging.DEBUG)
        self._hook = hook

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            self._hook(event)


@contextmanager
def listening(hook: Callable[[Event], object]) -> Iterator[None]:
    """Call a function with every event of what is done within a ``with`` statement, progress included.

    Parameters
    ----------
    hook : callable
        Takes an :class:`Event`. What it raises ends the work.
    """
    handler, level = _Hook(hook), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def remark(text: str) -> None:
    """Tell something that whoever reads along should know."""
    _tell(logging.INFO, Event(_OPEN.get()[-1].name if _OPEN.get() else "", "remark", step=text))


def logged(
    name: str, figures: Callable[[Any], Mapping[str, Any]] = lambda _: {}
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a phase.

    Parameters
    ----------
    name : str
    figures : callable
        Gives what is told of the result.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def told(*arguments: P.args, **options: P.kwargs) -> R:
            with phase(name) as known:
                result = function(*arguments, **options)
                known.update(figures(result))
                return result

        return told

    return decorate


def _tell(level: int, event: Event) -> None:
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s", event.message, extra={"event": event})
