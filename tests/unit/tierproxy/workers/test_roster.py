"""Who gets a client, who is ready, when a dead one is started again."""

from tierproxy.admin import PartHealth
from tierproxy.workers.roster import Restarts, Roster, Seat

PORT = 9192
OK = PartHealth(True, "")


def serving(gateways: int = 2, archiver: bool = True) -> Roster:
    """All there, all well, all at PORT."""
    roster = Roster(gateways, archiver)
    for seat in roster.seats:
        serve(roster, seat)
    return roster


def serve(roster: Roster, seat: Seat) -> None:
    seat.began()
    seat.ports.add(PORT)
    roster.said(seat, seat.role, OK)


def give(roster: Roster, count: int = 1) -> list[str]:
    """The names of those who get the next clients."""
    names = []
    for _ in range(count):
        seat = roster.candidates(PORT)[0]
        roster.gave(seat)
        names.append(seat.name)
    return names


def test_clients_go_to_who_has_the_fewest() -> None:
    roster = serving(3)
    assert give(roster, 4) == ["gateway-1", "gateway-2", "gateway-3", "gateway-1"]
    roster.seats[0].counted(2, 2)
    roster.seats[1].counted(0, 1)  # its client has left
    assert give(roster, 3) == ["gateway-2", "gateway-3", "gateway-2"]


def test_what_was_given_counts_before_it_is_counted_there() -> None:
    roster = serving(2)
    assert give(roster, 6).count("gateway-1") == 3
    roster.seats[0].counted(1, 1)  # two are still on their way
    roster.seats[1].counted(3, 3)
    assert give(roster, 2) == ["gateway-1", "gateway-2"]


def test_nobody_is_sent_where_the_port_is_not_known_or_nobody_lives() -> None:
    roster = serving(2)
    first, second, archiver = roster.seats
    first.ports.discard(PORT)
    assert roster.candidates(PORT) == [second]
    second.ended("killed")
    assert roster.candidates(PORT) == []
    assert archiver not in roster.candidates(PORT)
    serve(roster, first)
    roster.said(first, "gateway", PartHealth(False, "stopping"))
    assert roster.candidates(PORT) == []


def test_a_cluster_that_is_away_keeps_no_client_out() -> None:
    roster = serving(1)
    roster.said(roster.seats[0], "cluster", PartHealth(False, "no broker answers"))
    assert roster.candidates(PORT) == [roster.seats[0]]
    assert not roster.ready


def test_ready_when_all_are_and_from_then_on_while_one_gateway_is() -> None:
    roster = Roster(2, True)
    first, second, archiver = roster.seats
    serve(roster, first)
    serve(roster, second)
    assert not roster.ready
    assert roster.parts["archiver"] == PartHealth(False, "it is starting")
    serve(roster, archiver)
    assert roster.ready
    archiver.ended("killed; another one is started now")
    first.ended("killed")
    assert roster.ready
    assert roster.parts == {
        "gateway-1": PartHealth(False, "killed"),
        "gateway-2": OK,
        "archiver": PartHealth(False, "killed; another one is started now"),
    }
    second.ended("killed")
    assert not roster.ready
    roster.said(first, "gateway", OK)
    assert roster.ready


def test_parts_are_told_by_worker() -> None:
    roster = serving(1, archiver=False)
    roster.said(roster.seats[0], "cluster", PartHealth(False, "no broker answers"))
    assert roster.parts == {"gateway-1": OK, "gateway-1 cluster": PartHealth(False, "no broker answers")}


def test_who_dies_soon_and_again_waits_longer_each_time() -> None:
    restarts = Restarts()
    assert [restarts.after(0.5) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert [restarts.after(lived) for lived in (90.0, 59.0, 1.0)] == [0, 1, 2]


def test_who_is_about_to_stop_is_not_ready_and_still_takes_clients() -> None:
    roster = serving(2)
    roster.stopping = "stopping, 5 s after being told to"
    assert not roster.ready
    assert roster.parts["workers"] == PartHealth(False, roster.stopping)
    assert give(roster, 2) == ["gateway-1", "gateway-2"]
