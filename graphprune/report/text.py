# SPDX-License-Identifier: Apache-2.0
"""How numbers and names are written for people."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bar", "caution", "count", "distinct", "duration", "file_size", "name", "percent", "plural"]

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_THOUSAND = 1000
_FEW = 50
"""Samples below which a share is a guess: of fifty, a half is good to fourteen points."""
_NORMAL = 1.96
"""How many deviations hold 95 % of a normal distribution."""
_TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


def count(value: float, unit: str = "") -> str:
    """Return a number with three digits and a prefix.

    Examples
    --------
    >>> count(1_814_073_344, "FLOPs")
    '1.81 GFLOPs'
    >>> count(512)
    '512'
    >>> count(11_689_512)
    '11.7 M'
    """
    power = 0
    while abs(value) >= _THOUSAND - 0.5 and power + 1 < len(_PREFIXES):
        value /= _THOUSAND
        power += 1
    digits = 0 if power == 0 and value == int(value) else max(0, 3 - len(str(int(abs(value)))))
    return f"{value:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()


def file_size(size: int) -> str:
    """Return a number of bytes, in powers of 1000 as disks count.

    Examples
    --------
    >>> file_size(482_311)
    '482 kB'
    """
    return count(size, "B")


def caution(share: float, samples: int) -> str:
    """Return what is to be said of a share that few samples show; nothing for fifty and more.

    The range is that of Wilson [1]_: what the share of all samples may be, with a confidence of 95 %.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
       Statistical Association 22 (1927).

    Examples
    --------
    >>> caution(0.75, 4)
    'too few to say much: it may be 30 to 95 % of all'
    >>> caution(0.75, 400)
    ''
    """
    if samples >= _FEW or samples < 1:
        return ""
    square = _NORMAL**2
    middle = (share + square / (2 * samples)) / (1 + square / samples)
    spread = _NORMAL * sqrt(share * (1 - share) / samples + square / (4 * samples**2)) / (1 + square / samples)
    low, high = max(0.0, middle - spread), min(1.0, middle + spread)
    return f"too few to say much: it may be {100 * low:.0f} to {100 * high:.0f} % of all"


def duration(nanoseconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples
    --------
    >>> duration(8_190_000)
    '8.19 ms'
    """
    factor, unit = next((pair for pair in _TIMES if nanoseconds >= pair[0]), _TIMES[-1])
    return f"{nanoseconds / factor:.3g} {unit}"


def percent(after: float, before: float) -> str:
    """Return the share that is left.

    Examples
    --------
    >>> percent(499, 1000)
    '49.9 %'
    >>> percent(0, 0)
    '–'
    """
    return f"{100 * after / before:.1f} %" if before else "–"


def name(text: str, width: int = 56) -> str:
    """Return a name from a model, harmless on a terminal and shortened in the middle.

    Examples
    --------
    >>> name("/layer1/layer1.0/conv1/Conv", 16)
    '/layer1…nv1/Conv'
    """
    safe = repr(text)[1:-1]
    if len(safe) <= width:
        return safe
    head = (width - 1) // 2
    return f"{safe[:head]}…{safe[len(safe) - (width - 1 - head) :]}"


def distinct(names: Sequence[str], width: int) -> dict[str, str]:
    """Return names from a model in at most `width` characters, so that different ones stay different.

    What all have in front gives way first, then the middle, wherever that keeps most of them apart; what is still alike
    is numbered.

    Examples
    --------
    >>> distinct(["/stages/stages.0/conv/Conv", "/stages/stages.1/conv/Conv"], 14)
    {'/stages/stages.0/conv/Conv': '…0/conv/Conv', '/stages/stages.1/conv/Conv': '…1/conv/Conv'}
    """
    whole = {each: repr(each)[1:-1] for each in dict.fromkeys(names)}
    if all(len(safe) <= width for safe in whole.values()):
        return whole
    shared = _shared(*whole.values())
    tries = [
        {each: _elided(safe, width, head) for each, safe in whole.items()} for head in dict.fromkeys(_heads(width))
    ]
    if shared > 1:
        cut = {each: f"…{safe[shared:]}" for each, safe in whole.items()}
        tries = [{each: _elided(safe, width, head) for each, safe in cut.items()} for head in _heads(width)] + tries
    best = max(tries, key=lambda shown: len({*shown.values()}))
    return best if len({*best.values()}) == len(best) else _numbered(best, width)


def _shared(*names: str) -> int:
    """Return how many characters all of several names begin with."""
    return len([*takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))]) if len(names) > 1 else 0


def _heads(width: int) -> tuple[int, ...]:
    """Return how many characters may be kept in front of what is left out."""
    return (width - 1) // 2, (width - 1) // 4, 1, 3 * (width - 1) // 4, width - 1


def _elided(safe: str, width: int, head: int) -> str:
    if len(safe) <= width:
        return safe
    tail = width - 1 - head
    return f"{safe[:head]}…{safe[len(safe) - tail :] if tail > 0 else ''}"


def _numbered(shown: dict[str, str], width: int) -> dict[str, str]:
    """Put numbers behind texts that several names have."""
    seen: dict[str, int] = {}
    alike = Counter(shown.values())
    result = {}
    for each, short in shown.items():
        seen[short] = seen.get(short, 0) + 1
        mark = f"~{seen[short]}"
        result[each] = f"{short[: max(0, width - len(mark))]}{mark}" if alike[short] > 1 else short
    return result


def plural(number: int, what: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> plural(1, "group"), plural(1200, "layer")
    ('1 group', '1,200 layers')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def bar(share: float, width: int = 20) -> str:
    """Return a bar that is filled to ``share`` of its width.

    Examples
    --------
    >>> bar(0.5, 8)
    '████░░░░'
    """
    filled = min(width, max(0, round(share * width)))
    return "█" * filled + "░" * (width - filled)
