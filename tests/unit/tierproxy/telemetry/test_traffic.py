"""Requests are counted by API and tier as a conversation goes on, and shown when somebody looks."""

import re
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.unit.tierproxy.talk import Talk, answer, archived, catalog, fetch, fetch_answer, fetched, request
from tierproxy.routing.table import KNOWN
from tierproxy.telemetry.pulse import exposition
from tierproxy.telemetry.traffic import Traffic, api_name


def shown(name: str, **labels: str) -> float:
    exposition()
    return REGISTRY.get_sample_value(f"tierproxy_{name}", labels) or 0.0


def more(name: str, **labels: str) -> Callable[[], float]:
    """By how much it has grown since now."""
    before = shown(name, **labels)
    return lambda: shown(name, **labels) - before


def test_a_request_and_its_answer_count_by_api() -> None:
    talk, api = Talk(), "Heartbeat"
    requests, asked = more("requests_total", api=api), more("request_bytes_total", api=api)
    answered = more("answer_bytes_total", api=api, tier="hot")
    soon, late = (more("request_seconds_bucket", api=api, tier="hot", le=le) for le in ("0.1", "0.25"))
    beat, reply = request(ApiKey.HEARTBEAT, 4, 1), answer(ApiKey.HEARTBEAT, 4, 1)
    talk.conversation.now = 10.0
    talk.client(beat)
    talk.conversation.now = 10.2
    talk.broker(reply)
    assert (requests(), asked(), answered()) == (1, len(beat), len(reply))
    assert (soon(), late()) == (0, 1)


def test_an_answer_that_took_the_archive_is_cold() -> None:
    talk = Talk(catalog=catalog(manifest=archived(0, 500), broker_start=500))
    hot, cold = (more("request_seconds_count", api="Fetch", tier=tier) for tier in ("hot", "cold"))
    seconds = more("request_seconds_sum", api="Fetch", tier="cold")
    size = more("answer_bytes_total", api="Fetch", tier="cold")
    talk.conversation.now = 10.0
    talk.client(fetch(1, (0, 100)))
    talk.broker(fetch_answer(1, fetched(0, ErrorCode.OFFSET_OUT_OF_RANGE)))
    talk.conversation.now = 10.5
    talk.conversation.release([b"finished"])
    assert (hot(), cold(), size()) == (0, 1, len(b"finished"))
    assert seconds() == pytest.approx(0.5)


def test_what_is_refused_is_no_request_and_no_label() -> None:
    talk = Talk()
    beats = more("requests_total", api="Heartbeat")
    talk.client(request(ApiKey.HEARTBEAT, 4, 1), b"\x27\x0f" + bytes(8))  # API 9999
    assert talk.conversation.closing is not None
    assert beats() == 1
    assert not re.search(rb'^tierproxy_requests_total\{api="[^A-Z]', exposition(), re.MULTILINE)


def test_every_api_has_its_name_as_kafka_writes_it() -> None:
    names = {api_name(key) for key in KNOWN}
    assert len(names) == len(KNOWN)
    assert {"Fetch", "ListOffsets", "SaslHandshake", "ConsumerGroupHeartbeat"} <= names
    assert all(re.fullmatch("[A-Z][A-Za-z]+", name) for name in names)


def test_nothing_is_shown_twice() -> None:
    traffic = Traffic()
    requests = more("requests_total", api="EndTxn")
    traffic.asked(ApiKey.END_TXN, 10)
    traffic.flush()
    traffic.flush()
    assert requests() == 1
