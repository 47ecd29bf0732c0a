import struct

import pytest

from protocol.apis import ApiKey
from protocol.endpoints import Endpoint, read_endpoints
from protocol.errors import ErrorCode
from protocol.fetch import FULL_SESSIONLESS, scan_fetch_request
from protocol.fetch_response import FetchResponse, encode_fetch_response, parse_fetch_response
from protocol.headers import read_request_header
from protocol.wire import put_compact_string
from tests.unit.tierproxy.talk import (
    Talk,
    answer,
    archived,
    catalog,
    fetch,
    fetch_answer,
    fetched,
    partitions_of,
    request,
)
from tierproxy.conversation import GATHERED_LIMIT, HOT_SECONDS, OWED_LIMIT, SMALL_ANSWER, Conversation
from tierproxy.routing.holds import Client, EndpointsHold, FetchHold
from tierproxy.routing.table import OFFERED

OUT_OF_RANGE = ErrorCode.OFFSET_OUT_OF_RANGE


@pytest.fixture(params=[False, True], ids=["whole", "byte by byte"])
def piecewise(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def heartbeat(correlation_id: int) -> bytes:
    return request(ApiKey.HEARTBEAT, 4, correlation_id, b"\x02g\x00\x00\x00\x01\x02m\x00\x00")


# -- what passes ------------------------------------------------------------------------------------------------------


def test_only_the_middle_of_what_flows_by_passes_unseen() -> None:
    talk = Talk()
    reply = answer(ApiKey.HEARTBEAT, 4, 1, bytes(20))
    talk.client(heartbeat(1), request(ApiKey.METADATA, 12, 2, bytes(20)))
    assert not talk.conversation.passes(1), "whose answer it is must be seen"
    talk.conversation.from_broker(struct.pack(">i", len(reply)) + reply[:10])
    left = len(reply) - 10
    assert talk.conversation.passes(left - 2)
    assert not talk.conversation.passes(2), "with the last byte the answer ends"
    talk.conversation.from_broker(reply[-2:])
    talk.conversation.from_broker(struct.pack(">i", 100) + answer(ApiKey.METADATA, 12, 2, bytes(10)))
    assert not talk.conversation.passes(1), "this one is gathered"


def test_of_a_fetch_answer_records_pass_unseen_and_what_is_patched_does_not() -> None:
    talk = Talk()
    talk.client(fetch(1, (0, 450), (1, 0), topic="plain"))
    records = bytes(5000)
    reply = fetch_answer(1, *(fetched(at, records=records, topic="plain") for at in (0, 1)))
    behind_first = reply.index(records) + len(records)
    talk.conversation.from_broker(struct.pack(">i", len(reply)) + reply[: behind_first - 100])
    assert not talk.conversation.passes(101), "the next partition's log start is in there"
    assert talk.conversation.passes(100)
    assert not talk.conversation.passes(1)
    talk.conversation.from_broker(reply[behind_first:])
    assert talk.conversation.unanswered == 0


def test_what_we_do_not_treat_passes_unchanged_both_ways(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    talk.client(heartbeat(1), heartbeat(2))
    assert talk.to_broker() == [heartbeat(1), heartbeat(2)]
    answers = [answer(ApiKey.HEARTBEAT, 4, n, b"\0\0\0\0\0\0\0") for n in (1, 2)]
    talk.broker(*answers)
    assert talk.to_client() == answers
    assert talk.conversation.unanswered == 0


def test_a_large_request_is_not_gathered() -> None:
    talk = Talk()
    head = request(ApiKey.PRODUCE, 9, 1, b"\x00\xff\xff")
    talk.conversation.from_client(struct.pack(">i", 1 << 20) + head + bytes(100_000))
    assert sum(len(piece) for piece in talk.conversation.to_broker) == 4 + len(head) + 100_000


def test_a_produce_without_acks_is_not_waited_for() -> None:
    talk = Talk()
    silent = request(ApiKey.PRODUCE, 9, 1, b"\x00\x00\x00" + bytes(6))
    talk.client(silent, heartbeat(2))
    assert talk.to_broker() == [silent, heartbeat(2)]
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 2))
    assert talk.to_client() == [answer(ApiKey.HEARTBEAT, 4, 2)]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (struct.pack(">hhih", 999, 0, 1, -1), "999"),
        (request(ApiKey.FETCH, 3, 1), "not offered"),
        (request(ApiKey.FETCH, 19, 1), "not offered"),
        (request(ApiKey.FETCH, 17, 1, b"\xff"), "malformed"),
        (request(ApiKey.LIST_OFFSETS, 7, 1, b"\xff\xff\xff\xff\x00\xff\xff\xff\xff\x07"), "malformed"),
        (b"\0\1", "malformed"),
        (b"", "malformed"),
    ],
)
def test_what_kafka_would_not_understand_closes_the_connection(payload: bytes, why: str, piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    talk.client(payload)
    assert talk.conversation.closing is not None
    assert why in talk.conversation.closing
    assert talk.to_broker() == []


def test_a_request_that_would_take_long_to_read_closes_the_connection() -> None:
    talk = Talk()
    talk.conversation = Conversation(talk.catalog, talk.addresses, 1 << 30)
    talk.conversation.from_client(struct.pack(">i", GATHERED_LIMIT + 1) + fetch(1, (0, 5)) + bytes(1 << 17))
    assert talk.conversation.closing is not None


def test_a_frame_above_the_limit_closes_the_connection() -> None:
    talk = Talk()
    talk.conversation.from_client(struct.pack(">i", (1 << 20) + 1))
    assert talk.conversation.closing is not None
    assert "limit" in talk.conversation.closing


def test_nothing_is_read_after_the_end() -> None:
    talk = Talk()
    talk.client(b"\0\1", heartbeat(1))
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 1))
    assert (talk.to_broker(), talk.to_client()) == ([], [])


def test_an_answer_nobody_asked_for_closes_the_connection() -> None:
    talk = Talk()
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 1))
    assert talk.conversation.closing is not None


def test_answers_out_of_order_close_the_connection() -> None:
    talk = Talk()
    talk.client(heartbeat(1), heartbeat(2))
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 2))
    assert talk.conversation.closing is not None
    assert talk.to_client() == []


# -- answers of our own -----------------------------------------------------------------------------------------------


def test_a_too_new_api_versions_is_answered_as_kafka_does_in_its_turn(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    talk.client(heartbeat(1), request(ApiKey.API_VERSIONS, 5, 2), heartbeat(3))
    assert talk.to_broker() == [heartbeat(1), heartbeat(3)]
    assert talk.to_client() == [], "not before the answer to request 1"
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 1))
    unsupported = bytes.fromhex("00000002 0023 00000001 0012 0000 0004")
    assert talk.to_client() == [answer(ApiKey.HEARTBEAT, 4, 1), unsupported]
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 3))
    assert talk.to_client() == [answer(ApiKey.HEARTBEAT, 4, 3)]


def test_each_is_told_of_versions_under_its_own_number(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    produce, unknown = struct.pack(">hhh", ApiKey.PRODUCE, 3, 99), struct.pack(">hhh", 999, 0, 1)
    for number in (7, 8):
        talk.client(request(ApiKey.API_VERSIONS, 0, number))
        talk.broker(answer(ApiKey.API_VERSIONS, 0, number, struct.pack(">hi", 0, 2) + produce + unknown))
        (told,) = talk.to_client()
        shown = struct.pack(">hi", 0, 1) + struct.pack(">hhh", ApiKey.PRODUCE, 3, OFFERED[ApiKey.PRODUCE][1])
        assert told == answer(ApiKey.API_VERSIONS, 0, number, shown)


def test_a_fetch_opens_no_session_upstream() -> None:
    talk = Talk()
    ask = fetch(1, (0, 5))
    at = ask.index(FULL_SESSIONLESS)
    talk.client(ask[:at] + bytes(8) + ask[at + 8 :])  # id 0, epoch 0: open a session
    assert talk.to_broker() == [ask]


@pytest.mark.parametrize("epoch", [1, 3, 2**31 - 1, -2])
def test_an_incremental_fetch_is_told_that_its_session_is_unknown(epoch: int) -> None:
    talk = Talk()
    ask = fetch(1, (0, 5))
    at = ask.index(FULL_SESSIONLESS)
    talk.client(ask[:at] + struct.pack(">ii", 77, epoch) + ask[at + 8 :])
    assert talk.to_broker() == []
    (told,) = talk.to_client()
    response = parse_fetch_response(told, 17)
    assert (response.correlation_id, response.error, response.session_id) == (1, 70, 0)
    assert response.partitions == []


# -- hot fetches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5, 11, 12, 13, 15, 16, 17, 18])
@pytest.mark.parametrize("size", [10, SMALL_ANSWER * 2])
def test_a_hot_answer_shows_where_the_archive_starts(version: int, size: int, piecewise: bool) -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400), piecewise=piecewise)
    talk.client(fetch(1, (0, 450), version=version))
    records = bytes(range(256)) * (size // 256) + bytes(size % 256)
    told = fetch_answer(1, fetched(0, log_start=400, records=records, version=version), version=version)
    talk.broker(told)
    (shown,) = talk.to_client()
    assert len(shown) == len(told)
    (partition,) = partitions_of(shown, version)
    assert partition.log_start == (100 if version >= 5 else -1)
    assert bytes(partition.records or b"") == records
    assert talk.conversation.held is None


def test_while_the_archive_is_unknown_no_log_start_is_shown() -> None:
    talk = Talk(catalog())
    talk.client(fetch(1, (0, 450)))
    talk.broker(fetch_answer(1, fetched(0, log_start=400)))
    (partition,) = partitions_of(talk.to_client()[0])
    assert partition.log_start == -1
    assert [str(pid) for pid in talk.catalog.wanted] == ["flights-0"]


def test_the_log_start_of_a_topic_that_just_passes_is_the_brokers() -> None:
    talk = Talk()
    talk.client(fetch(1, (0, 450), topic="plain"))
    told = fetch_answer(1, fetched(0, log_start=400, topic="plain"))
    talk.broker(told)
    assert talk.to_client() == [told]


def test_the_pieces_of_a_streaming_answer_leave_at_once() -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    talk.client(fetch(1, (0, 450)))
    payload = fetch_answer(1, fetched(0, log_start=400, records=bytes(50_000)))
    stream = struct.pack(">i", len(payload)) + payload
    talk.conversation.from_broker(stream[:20_000])
    assert sum(len(piece) for piece in talk.conversation.to_client) == 20_000


def test_a_hot_answer_that_ends_too_early_closes_the_connection() -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    talk.client(fetch(1, (0, 450)))
    talk.broker(fetch_answer(1, fetched(0, log_start=400, records=bytes(SMALL_ANSWER)))[:-1])
    assert talk.conversation.closing is not None


def test_a_followers_fetch_passes_but_for_addresses() -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    ask = bytearray(fetch(1, (0, 150), version=11))
    body = read_request_header(ask).body_at
    struct.pack_into(">i", ask, body, 2)  # replica_id
    session = bytes(ask).index(FULL_SESSIONLESS)
    ask[session : session + 8] = struct.pack(">ii", 5, 7)
    talk.client(bytes(ask))
    assert talk.to_broker() == [bytes(ask)]
    told = fetch_answer(1, fetched(0, OUT_OF_RANGE, version=11), version=11)
    talk.broker(told)
    assert talk.to_client() == [told]


@pytest.mark.parametrize("version", [17, 18])
def test_no_address_of_a_broker_passes_in_a_followers_answer(version: int) -> None:
    talk = Talk()
    ask = bytearray(fetch(1, (0, 150), version=version))
    ask = ask[:-1] + b"\x01\x01\x0d" + struct.pack(">iq", 2, -1) + b"\0"  # tag 1, replica state: follower 2
    talk.client(bytes(ask))
    assert len(talk.to_broker()) == 1
    told = encode_fetch_response(
        FetchResponse(version, 1, 0, 0, 0, [fetched(0, 6, version=version)], node_endpoints_tag(1, "kafka-1", 9092))
    )
    talk.broker(b"".join(told))
    (shown,) = talk.to_client()
    assert len(shown) == sum(map(len, told))
    assert b"kafka-1" not in shown


@pytest.mark.parametrize("records", [b"", bytes(SMALL_ANSWER)], ids=["small", "streaming"])
def test_a_moved_leaders_address_is_ours_or_blanked(records: bytes) -> None:
    talk = Talk()
    talk.client(fetch(1, (0, 150), (1, 0)))
    moved = [fetched(0, 6), fetched(1, records=records)]
    told = encode_fetch_response(FetchResponse(17, 1, 0, 0, 0, moved, node_endpoints_tag(1, "kafka-1", 9092)))
    talk.broker(b"".join(told))
    (shown,) = talk.to_client()
    assert b"kafka-1" not in shown
    assert (b"proxy" in shown) is (records == b"")


def node_endpoints_tag(node: int, host: str, port: int) -> bytes:
    endpoint = struct.pack(">i", node) + put_compact_string(host) + struct.pack(">i", port) + b"\0\0"
    return b"\x01\x00" + bytes([len(endpoint) + 1]) + b"\x02" + endpoint


# -- out of range -----------------------------------------------------------------------------------------------------


def test_an_expected_refusal_is_held_for_the_archive() -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    talk.client(fetch(1, (0, 150)))
    talk.broker(fetch_answer(1, fetched(0, OUT_OF_RANGE)))
    hold = talk.conversation.held
    assert isinstance(hold, FetchHold)
    assert [(r.partition, r.offset) for r in hold.refused] == [(0, 150)]
    assert talk.to_client() == []


def test_later_answers_wait_behind_a_held_one_and_then_go_on(piecewise: bool) -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400), piecewise=piecewise)
    talk.client(fetch(1, (0, 150)), heartbeat(2), request(ApiKey.API_VERSIONS, 9, 3), heartbeat(4))
    talk.broker(
        fetch_answer(1, fetched(0, OUT_OF_RANGE)), answer(ApiKey.HEARTBEAT, 4, 2), answer(ApiKey.HEARTBEAT, 4, 4)
    )
    assert talk.to_client() == []
    talk.conversation.release([b"finished"])
    first, second, third, fourth = talk.to_client()
    assert first == b"finished"
    assert second == answer(ApiKey.HEARTBEAT, 4, 2)
    assert third[:6] == bytes.fromhex("00000003 0023")
    assert fourth == answer(ApiKey.HEARTBEAT, 4, 4)
    assert talk.conversation.unanswered == 0


def test_a_hold_says_whose_it_is_and_whether_they_read_hot_records() -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    talk.conversation.host = "10.0.0.7"

    def held(correlation_id: int, *partitions: tuple[int, int]) -> FetchHold:
        talk.client(fetch(correlation_id, *partitions))
        cold, *hot = (fetched(p, OUT_OF_RANGE if p == 0 else 0) for p, _ in partitions)
        talk.broker(fetch_answer(correlation_id, cold, *hot))
        hold = talk.conversation.held
        assert isinstance(hold, FetchHold)
        talk.conversation.release([b"finished"])
        return hold

    hold = held(1, (0, 150))
    assert hold.client == Client("test", None, "10.0.0.7")
    assert (hold.all_cold, hold.reads_hot) == (True, False)
    hold = held(2, (0, 150), (1, 10))
    assert (hold.all_cold, hold.reads_hot) == (False, True)
    talk.conversation.now += HOT_SECONDS / 2
    assert held(3, (0, 150)).reads_hot
    talk.conversation.now += HOT_SECONDS / 2
    assert not held(4, (0, 150)).reads_hot
    talk.client(fetch(5, (1, 10)))
    talk.broker(fetch_answer(5, fetched(1)))
    assert held(6, (0, 150)).reads_hot


@pytest.mark.parametrize("version", [4, 11, 12, 13, 15])
def test_an_unexpected_refusal_of_a_streaming_answer_becomes_no_records_and_the_next_is_held(version: int) -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=100))  # the broker has been trimmed since
    talk.client(fetch(1, (0, 150), version=version))
    told = fetch_answer(1, fetched(0, OUT_OF_RANGE, version=version), version=version)
    talk.broker(told)
    (shown,) = talk.to_client()
    assert len(shown) == len(told)
    (partition,) = partitions_of(shown, version)
    assert (partition.error, bytes(partition.records or b"")) == (0, b"")

    talk.client(fetch(2, (0, 150), version=version))
    talk.broker(fetch_answer(2, fetched(0, OUT_OF_RANGE, version=version), version=version))
    assert isinstance(talk.conversation.held, FetchHold)


def test_a_refusal_of_a_topic_that_just_passes_reaches_the_client() -> None:
    talk = Talk()
    talk.client(fetch(1, (0, 150), topic="plain"))
    told = fetch_answer(1, fetched(0, OUT_OF_RANGE, topic="plain"))
    talk.broker(told)
    assert talk.to_client() == [told]


def test_a_refusal_of_a_topic_nobody_has_heard_of_is_looked_into() -> None:
    talk = Talk()
    talk.catalog.set_topics([], [])
    for correlation_id in (1, 2):
        talk.client(fetch(correlation_id, (0, 150), version=13))
        talk.broker(fetch_answer(correlation_id, fetched(0, OUT_OF_RANGE, version=13), version=13))
    (masked,) = talk.to_client()
    assert partitions_of(masked, 13)[0].error == 0
    assert talk.catalog.topics_stale
    assert isinstance(talk.conversation.held, FetchHold)


@pytest.mark.parametrize("version", [4, 6, 7, 14, 15, 18])
def test_busy_hot_partitions_leave_cold_ones_their_share_of_max_bytes(version: int) -> None:
    talk = Talk(catalog(manifest=archived(100, 500), broker_start=400))
    talk.client(fetch(1, (0, 150), (1, 0), (2, 0), max_bytes=900, version=version))
    (asked,) = talk.to_broker()
    assert scan_fetch_request(asked, read_request_header(asked)).max_bytes == 600


# -- addresses --------------------------------------------------------------------------------------------------------


def metadata_v0(*brokers: tuple[int, str, int]) -> bytes:
    body = struct.pack(">i", len(brokers))
    for node, host, port in brokers:
        body += struct.pack(">ih", node, len(host)) + host.encode() + struct.pack(">i", port)
    return answer(ApiKey.METADATA, 0, 1, body + struct.pack(">i", 0))


def test_metadata_names_our_ports_and_keeps_node_ids(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    talk.client(request(ApiKey.METADATA, 0, 1, bytes(4)))
    talk.broker(metadata_v0((1, "kafka-1", 9092)))
    assert talk.to_client() == [metadata_v0((1, "proxy", 9194))]


def test_a_broker_without_a_port_is_not_heard_of_before_it_has_one() -> None:
    talk = Talk()
    talk.client(request(ApiKey.METADATA, 0, 1, bytes(4)))
    told = metadata_v0((1, "kafka-1", 9092), (7, "kafka-7", 9099))
    talk.broker(told)
    hold = talk.conversation.held
    assert isinstance(hold, EndpointsHold)
    assert hold.nodes == [7]
    assert hold.payload == told
    assert talk.addresses.real[7] == ("kafka-7", 9099)
    assert talk.to_client() == []


def test_no_port_above_the_last_one_and_never_the_brokers_own_address() -> None:
    talk = Talk()
    talk.addresses.listening.add(70_000)
    talk.client(request(ApiKey.METADATA, 0, 1, bytes(4)))
    talk.broker(metadata_v0((70_000, "kafka-x", 9092)))
    assert read_endpoints(ApiKey.METADATA, 0, talk.to_client()[0]) == [Endpoint(70_000, "proxy", 0)]


# -- too much of it ---------------------------------------------------------------------------------------------------


def test_requests_beyond_the_limit_are_not_read_before_answers_have_come(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise, unanswered=2)
    talk.client(*(heartbeat(n) for n in range(6)))
    assert talk.to_broker() == [heartbeat(n) for n in range(3)]
    assert talk.conversation.crowded
    seen = 3
    for n in range(6):
        talk.broker(answer(ApiKey.HEARTBEAT, 4, n))
        sent = talk.to_broker()
        assert sent == [heartbeat(seen + each) for each in range(len(sent))]
        seen += len(sent)
        assert talk.to_client() == [answer(ApiKey.HEARTBEAT, 4, n)]
    assert seen == 6
    assert not talk.conversation.crowded


def test_requests_that_we_answer_ourselves_do_not_crowd_anybody_out() -> None:
    talk = Talk(unanswered=2)
    too_new = [request(ApiKey.API_VERSIONS, 99, n, b"\x00") for n in range(10)]
    talk.client(*too_new, heartbeat(10))
    assert len(talk.to_client()) == 10
    assert talk.to_broker() == [heartbeat(10)]


def test_unanswered_requests_that_were_read_whole_are_bounded_by_their_bytes() -> None:
    talk = Talk()
    large = [fetch(n, *((partition, 0) for partition in range(30_000))) for n in range(6)]
    for each in large:
        talk.client(each)
    sent = len(talk.to_broker())
    assert sent == OWED_LIMIT // len(large[0]) + 1
    assert talk.conversation.crowded
    talk.broker(fetch_answer(0))
    assert len(talk.to_broker()) == 1
    for n in range(1, 6):
        talk.broker(fetch_answer(n))
    assert not talk.conversation.crowded
    assert talk.conversation.unanswered == 0


def test_a_malformed_request_behind_a_crowd_closes_the_connection_when_it_is_reached() -> None:
    talk = Talk(unanswered=0)
    talk.client(heartbeat(0), b"abc")
    assert talk.conversation.closing is None
    talk.broker(answer(ApiKey.HEARTBEAT, 4, 0))
    assert talk.conversation.closing is not None
    assert talk.to_client() == [answer(ApiKey.HEARTBEAT, 4, 0)]


def test_a_request_has_begun_until_it_is_forwarded() -> None:
    talk = Talk()
    begun = []
    stream = struct.pack(">i", len(heartbeat(1))) + heartbeat(1)
    for at in range(len(stream)):
        talk.conversation.from_client(stream[at : at + 1])
        begun.append(talk.conversation.begun)
    assert begun == [0] * (len(stream) - 1) + [None]
    talk.conversation.from_client(struct.pack(">i", 1 << 20) + request(ApiKey.PRODUCE, 9, 2, bytes(100_000)))
    assert talk.conversation.begun is None, "what flows by has no end that anything waits for"


# -- the end ----------------------------------------------------------------------------------------------------------


def test_who_leaves_answers_what_was_asked_and_forwards_nothing_new(piecewise: bool) -> None:
    talk = Talk(piecewise=piecewise)
    talk.client(heartbeat(1))
    talk.conversation.leaving = True
    talk.client(heartbeat(2), heartbeat(3))
    assert talk.to_broker() == [heartbeat(1)]
    assert not talk.conversation.idle
    reply = answer(ApiKey.HEARTBEAT, 4, 1, bytes(20))
    talk.broker(reply)
    assert talk.to_client() == [reply]
    assert talk.conversation.idle
    assert talk.to_broker() == []


def test_who_leaves_forwards_the_rest_of_what_has_begun() -> None:
    talk = Talk()
    big = request(ApiKey.PRODUCE, 9, 1, b"\0\xff\xff" + bytes(200_000))
    stream = struct.pack(">i", len(big)) + big
    talk.conversation.from_client(stream[:100_000])
    talk.conversation.leaving = True
    assert not talk.conversation.idle
    talk.conversation.from_client(stream[100_000:] + struct.pack(">i", 5) + b"never")
    assert talk.to_broker() == [big]
    talk.broker(answer(ApiKey.PRODUCE, 9, 1, bytes(20)))
    assert talk.conversation.idle


def test_who_leaves_forwards_nothing_of_what_is_still_being_gathered() -> None:
    talk = Talk()
    asked = fetch(1, (0, 450), topic="plain")
    talk.conversation.from_client(struct.pack(">i", len(asked)) + asked[:-1])
    talk.conversation.leaving = True
    talk.conversation.from_client(asked[-1:])
    assert talk.to_broker() == []
    assert talk.conversation.idle
