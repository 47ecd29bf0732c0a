import pytest

from tierproxy.ranges import ByteRange


@pytest.mark.parametrize(
    ("start", "end", "size", "http"), [(0, 1, 1, "bytes=0-0"), (0, 100, 100, "bytes=0-99"), (7, 9, 2, "bytes=7-8")]
)
def test_the_end_is_not_part_of_a_range_but_of_http_s(start: int, end: int, size: int, http: str) -> None:
    asked = ByteRange(start, end)
    assert (asked.size, asked.http) == (size, http)


def test_an_empty_range_can_be_had_but_not_asked_for_by_http() -> None:
    assert ByteRange(5, 5).size == 0
    with pytest.raises(ValueError, match="no bytes"):
        _ = ByteRange(5, 5).http


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (-2, -1)])
def test_what_is_no_range(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=rf"\[{start}, {end}\) is no range"):
        ByteRange(start, end)


def test_it_is_told_half_open() -> None:
    assert str(ByteRange(3, 8)) == "[3, 8)"
