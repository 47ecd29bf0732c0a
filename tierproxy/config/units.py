"""Sizes and durations as people write them: `128MiB`, `20GB`, `10m`, `7d`, `1h30m`, `500ms`.

A number without a unit is refused (except 0): nobody can tell whether `keep: 30` meant seconds or days.
The lone letters K, M, G are refused for sizes for the same reason: they mean 1000 to some and 1024 to others.
"""

import re
from typing import Final

SIZE_UNITS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
DURATION_UNITS_MS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}

SIZE_PATTERN: Final = r"^(0|[0-9]+(\.[0-9]+)?\s?([KMGTkmgt]i?)?[Bb])$"
DURATION_PATTERN: Final = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+)$"

_NUMBER_AND_WORD = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)")
_BY_LOWER_CASE = {unit.lower(): factor for unit, factor in SIZE_UNITS.items()}


def parse_size(text: str) -> int:
    """Bytes. ValueError says what is wrong and shows what is right."""
    match = _NUMBER_AND_WORD.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 128MiB or 20GB")
    number, unit = match.groups()
    if not unit:
        if float(number) == 0:
            return 0
        raise ValueError(f"{text!r} needs a unit: one of {', '.join(SIZE_UNITS)}")
    factor = _BY_LOWER_CASE.get(unit.lower())
    if factor is None:
        if unit.lower() in ("k", "m", "g", "t"):
            letter = unit.upper()
            raise ValueError(f"{text!r} can mean two things: write {letter}B (1000s) or {letter}iB (1024s)")
        raise ValueError(f"{text!r} has an unknown unit; sizes end in {', '.join(SIZE_UNITS)}")
    return round(float(number) * factor) if "." in number else int(number) * factor


def parse_duration_ms(text: str) -> int:
    """Milliseconds. Parts may follow each other (`1h30m`). ValueError says what is wrong."""
    stripped = text.strip()
    if re.fullmatch(r"0+(\.0+)?", stripped):
        return 0
    total = 0.0
    at = 0
    while at < len(stripped):
        match = _NUMBER_AND_WORD.match(stripped, at)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; write for example 500ms, 10m or 7d")
        number, unit = match.groups()
        if not unit:
            raise ValueError(f"{text!r} needs a unit: one of {', '.join(DURATION_UNITS_MS)}")
        factor = DURATION_UNITS_MS.get(unit)
        if factor is None:
            raise ValueError(f"{text!r} has an unknown unit {unit!r}; durations end in {', '.join(DURATION_UNITS_MS)}")
        total += float(number) * factor
        at = match.end()
    if at == 0:
        raise ValueError("is empty; write for example 500ms, 10m or 7d")
    return round(total)


def format_size(size: int) -> str:
    """For people: `1.5 MiB`, `20 GiB`, `312 B`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB" if value < 1000 else f"{value:.0f} TiB"


def format_duration(milliseconds: int) -> str:
    """For people, in the same words the configuration uses: `7d`, `1h30m`, `500ms`."""
    if milliseconds == 0:
        return "0s"
    parts = []
    rest = milliseconds
    for unit, factor in sorted(DURATION_UNITS_MS.items(), key=lambda item: -item[1]):
        if unit == "w":
            continue
        count, rest = divmod(rest, factor)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
