"""Numbers and times as people read them. Pure."""

from datetime import UTC, datetime

from tierproxy.config.units import format_duration


def duration(ms: int) -> str:
    """`200ms`, `3s`, `5m`, `2h30m`, `4d`: as exact as it is of use."""
    if ms < 1000:
        return format_duration(max(0, ms))
    unit = next((unit for unit in (86_400_000, 3_600_000, 60_000) if ms >= 10 * unit), 1000)
    return format_duration(max(0, round(ms / unit)) * unit)


def counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def time_text(ms: int) -> str:
    """`2026-01-31 12:00:05 UTC`; what no calendar has is the bare number."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{ms} ms"
