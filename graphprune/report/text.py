# SPDX-License-Identifier: Apache-2.0
"""How numbers and names are written for people."""

from __future__ import annotations

__all__ = ["bar", "count", "duration", "file_size", "name", "percent", "plural"]

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_THOUSAND = 1000
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
