import pytest

from tierproxy.pressure import Pressure


class Peer:
    """A connection that reads unless it must wait, and asks again when told to."""

    def __init__(self, pressure: Pressure) -> None:
        self.pressure = pressure
        self.gathered = 0
        self.waits = False

    def pressure_changed(self) -> None:
        self.waits = self.pressure.must_wait(self)

    def reads(self, size: int) -> None:
        assert not self.waits, "it is not read while it waits"
        self.gathered += size
        self.pressure.note(self, self.gathered)
        self.pressure_changed()

    def finishes(self) -> None:
        self.gathered = 0
        self.pressure.note(self, 0)
        self.pressure_changed()


@pytest.fixture
def peers() -> list[Peer]:
    pressure = Pressure(100)
    return [Peer(pressure) for _ in range(3)]


def test_below_the_bound_nobody_waits(peers: list[Peer]) -> None:
    for peer in peers:
        peer.reads(33)
    assert [peer.waits for peer in peers] == [False, False, False]


def test_over_the_bound_only_the_one_that_is_at_it_the_longest_goes_on(peers: list[Peer]) -> None:
    first, second, third = peers
    first.reads(40)
    second.reads(40)
    third.reads(40)
    second.pressure_changed()
    assert [peer.waits for peer in peers] == [False, True, True]
    first.reads(500)
    assert not first.waits


def test_when_one_has_finished_the_others_go_on(peers: list[Peer]) -> None:
    first, second, third = peers
    first.reads(90)
    second.reads(90)
    third.reads(90)
    first.finishes()
    assert [peer.waits for peer in peers] == [False, False, True], "the second is the oldest now"
    second.finishes()
    assert not third.waits
    third.finishes()
    assert peers[0].pressure.total == 0


def test_who_gathers_nothing_never_waits(peers: list[Peer]) -> None:
    peers[0].reads(500)
    peers[1].pressure_changed()
    assert not peers[1].waits
