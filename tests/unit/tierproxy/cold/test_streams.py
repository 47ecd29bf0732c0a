import pytest

from tierproxy.archive.names import PartitionId
from tierproxy.cold import streams
from tierproxy.cold.streams import LEAST_WINDOW, Stream, Streams

PID = PartitionId("orders", b"t" * 16, 0)
MIB = 1 << 20


def reader(seconds: float, size: int) -> Stream:
    """A reader that needs so long for so many bytes, and had to wait for ten seconds before it was given the next."""
    stream = Stream(0.0)
    stream.served(0.0, size)
    stream.asked(seconds)
    stream.asked(seconds + 5)  # it asks again for what it wasn't given
    stream.served(seconds + 10, size)
    return stream


@pytest.mark.parametrize(
    ("latency", "seconds", "window"),
    [
        (0.1, 0.01, (20 + 16) * MIB),  # 1 MiB in 10 ms: 10 MiB while a read is under way
        (0.2, 0.01, (40 + 16) * MIB),
        (0.1, 0.1, (2 + 16) * MIB),
        (0.1, 0.0001, 100 * MIB),  # no more than its share
    ],
)
def test_the_window_follows_the_reader_and_the_store(latency: float, seconds: float, window: int) -> None:
    assert reader(seconds, MIB).window(latency, 16 * MIB, 100 * MIB) == pytest.approx(window)


def test_many_readers_have_small_windows_but_never_none() -> None:
    assert reader(0.01, MIB).window(0.1, 16 * MIB, 3 * MIB) == 3 * MIB
    assert reader(0.01, MIB).window(0.1, 16 * MIB, 1) == LEAST_WINDOW


def test_what_is_ahead_lasts_as_long_as_the_reader_needs_for_it() -> None:
    stream = reader(0.01, MIB)
    stream.ahead = 5 * MIB
    assert stream.lasts() == pytest.approx(0.05)
    assert Stream(0.0, ahead=MIB).lasts() == 0.0


def test_nothing_is_known_of_the_speed_at_first() -> None:
    assert Stream(0.0).window(0.1, 16 * MIB, 100 * MIB) == 16 * MIB
    assert Stream(0.0).window(0.1, 16 * MIB, 5 * MIB) == 5 * MIB


def test_what_is_ahead_gets_less_as_it_is_taken() -> None:
    stream = Stream(0.0, frontier=50, ahead=100)
    stream.served(1.0, 70)
    assert (stream.ahead, stream.frontier) == (30, 50)
    stream.served(2.0, 70)
    assert stream.ahead == 0
    stream.missed()
    assert stream.frontier == -1


def test_who_was_served_lately_is_active() -> None:
    readers = Streams()
    for number, at in enumerate((0.0, 95.0, 99.0)):
        readers.moved(PID, -1, Stream(at), number)
    assert readers.active(100.0) == 2
    assert readers.active(100.5) == 2, "looked at once a second"
    assert readers.active(200.0) == 1, "and never none"


def test_a_reader_is_found_where_it_will_ask_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REMEMBERED", 2)
    readers, stream = Streams(), Stream(0.0)
    readers.moved(PID, 0, stream, 10)
    readers.moved(PID, 10, stream, 20)
    assert readers.at(PID, 10) is None
    assert readers.at(PID, 20) is stream
    readers.moved(PID, 5, Stream(0.0), 6)
    readers.moved(PID, 6, Stream(0.0), 7)
    readers.moved(PID, 8, Stream(0.0), 9)
    assert readers.at(PID, 20) is None, "the one that is silent the longest is forgotten"


def test_who_reads_alone_is_told_from_who_doesnt() -> None:
    readers, other = Streams(), PartitionId("orders", b"t" * 16, 1)
    readers.moved(PID, -1, Stream(9.0), 10)
    readers.moved(other, -1, Stream(9.0), 10)
    assert readers.alone(PID, 10.0)
    readers.moved(PID, -1, Stream(10.5), 20)
    assert not readers.alone(PID, 10.5), "a new one is seen at once"
    assert not readers.alone(PID, 12.0)
    assert readers.alone(other, 12.0)
    assert readers.alone(PID, 19.5), "one of them has gone"


def test_who_comes_to_where_another_is_shares_what_is_read_ahead() -> None:
    readers = Streams()
    readers.moved(PID, 0, Stream(0.0, frontier=500, ahead=100), 10)
    readers.moved(PID, 0, Stream(0.0), 10)
    found = readers.at(PID, 10)
    assert found is not None
    assert (found.frontier, found.ahead) == (500, 100)
    readers.moved(PID, 5, Stream(0.0, frontier=900, ahead=300), 10)
    found = readers.at(PID, 10)
    assert found is not None
    assert (found.frontier, found.ahead) == (900, 300)


def test_who_comes_to_where_another_has_stopped_is_active() -> None:
    readers = Streams()
    readers.moved(PID, -1, Stream(0.0), 10)
    readers.moved(PID, -2, Stream(50.0), 20)
    readers.moved(PID, 5, Stream(99.0), 10)
    readers.moved(PID, -3, Stream(99.0), 30)
    assert readers.active(100.0) == 2
