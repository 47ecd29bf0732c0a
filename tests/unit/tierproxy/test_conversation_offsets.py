"""ListOffsets that come one behind the other: all are begun, and answered in their turn."""

import pytest

from protocol.apis import ApiKey
from protocol.codec import encode_list_offsets_request, encode_list_offsets_response
from protocol.headers import request_header
from protocol.messages import ListOffsetsResponse, OffsetAnswer
from tests.unit.tierproxy.talk import Talk, answer, archived, catalog, fetch, fetch_answer, fetched, request
from tierproxy.routing.holds import LINE_BYTES, MOST_IN_LINE, Hold, OffsetsHold

VERSION = 7
FIRST, LATEST = -2, -1


@pytest.fixture
def talk() -> Talk:
    return Talk(catalog(manifest=archived(100, 500), broker_start=400))


def ask(correlation_id: int, timestamp: int = FIRST, partition: int = 0) -> bytes:
    body = encode_list_offsets_request(VERSION, 0, [("flights", partition, -1, timestamp)])
    return request_header(ApiKey.LIST_OFFSETS, VERSION, correlation_id, "test") + body


def told(correlation_id: int, offset: int = 400) -> bytes:
    said = ListOffsetsResponse(0, [OffsetAnswer("flights", 0, 0, -1, offset, 3)])
    return encode_list_offsets_response(said, VERSION, correlation_id)


def heartbeat(correlation_id: int) -> bytes:
    return request(ApiKey.HEARTBEAT, 4, correlation_id, b"\x02g\x00\x00\x00\x01\x02m\x00\x00")


def taken(talk: Talk) -> list[Hold]:
    """What the shell has to begin, since it was last asked."""
    holds, talk.conversation.to_carry_out = talk.conversation.to_carry_out, []
    return holds


def test_all_of_a_run_are_begun_and_leave_in_order(talk: Talk) -> None:
    talk.client(*(ask(n) for n in range(3)))
    talk.broker(*(told(n) for n in range(3)))
    first, second, third = taken(talk)
    assert isinstance(third, OffsetsHold)
    assert third.correlation_id == 2
    assert talk.conversation.held is first
    talk.conversation.release([b"third"], third)
    assert talk.to_client() == []
    talk.conversation.release([b"first"], first)
    assert talk.to_client() == [b"first"]
    assert talk.conversation.held is second
    talk.conversation.release([b"sec", b"ond"], second)
    assert talk.to_client() == [b"second", b"third"]
    assert talk.conversation.held is None
    assert talk.conversation.gathered == 0


def test_an_answer_that_needs_nothing_waits_for_its_turn_too(talk: Talk) -> None:
    talk.client(ask(0), ask(1, LATEST), ask(2))
    talk.broker(told(0), told(1, 900), told(2))
    first, third = taken(talk)
    assert talk.to_client() == []
    talk.conversation.release([b"first"], first)
    assert talk.to_client() == [b"first", told(1, 900)]
    assert talk.conversation.held is third


def test_what_is_no_list_offsets_is_not_looked_at(talk: Talk) -> None:
    talk.client(ask(0), ask(1), heartbeat(2), request(ApiKey.API_VERSIONS, 99, 3, b"\x00"), ask(4))
    talk.broker(told(0), told(1), answer(ApiKey.HEARTBEAT, 4, 2), told(4))
    first, second = taken(talk)
    assert not talk.conversation.listens
    talk.conversation.release([b"second"], second)
    talk.conversation.release([b"first"], first)
    assert talk.to_client()[:3] == [b"first", b"second", answer(ApiKey.HEARTBEAT, 4, 2)]
    (fifth,) = taken(talk)
    assert talk.conversation.held is fifth


def test_nothing_is_looked_at_behind_a_fetch(talk: Talk) -> None:
    talk.client(fetch(0, (0, 150)), ask(1))
    talk.broker(fetch_answer(0, fetched(0, 1)), told(1))
    (first,) = taken(talk)
    assert not talk.conversation.listens
    talk.conversation.release([b"first"], first)
    assert len(taken(talk)) == 1


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "byte by byte"])
def test_a_line_is_bounded_and_goes_on(piecewise: bool) -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400), piecewise=piecewise)
    count = MOST_IN_LINE + 50
    talk.client(*(ask(n) for n in range(count)))
    talk.broker(*(told(n) for n in range(count)))
    holds = taken(talk)
    assert len(holds) == MOST_IN_LINE
    assert not talk.conversation.listens
    for n, hold in enumerate(holds):
        talk.conversation.release([b"%d" % n], hold)
    holds = taken(talk)
    assert len(holds) == 50
    for n, hold in enumerate(holds):
        talk.conversation.release([b"%d" % (MOST_IN_LINE + n)], hold)
    assert talk.to_client() == [b"%d" % n for n in range(count)]
    assert talk.conversation.unanswered == 0


def test_a_line_is_bounded_by_bytes(talk: Talk) -> None:
    large = ListOffsetsResponse(0, [OffsetAnswer("flights", 0, 0, -1, 400, 3)] * 4000)
    reply = encode_list_offsets_response(large, VERSION, 1)
    assert len(reply) > LINE_BYTES
    talk.client(*(ask(n) for n in range(3)))
    talk.broker(told(0), reply, told(2))
    assert len(taken(talk)) == 2
    assert talk.conversation.gathered > LINE_BYTES
