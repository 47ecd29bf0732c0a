from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol import metadata

from protocol.api_versions import (
    api_versions_error,
    patch_api_versions,
    read_api_versions,
    unsupported_api_versions,
)
from protocol.apis import ApiKey
from protocol.errors import MalformedError
from tests.unit.protocol.reading import (
    reads_alike_from_every_buffer,
    refuses_every_truncation,
    refuses_trailing_bytes,
    survives_damage,
)
from tests.vectors import vector, vectors, version_of

NAMES = vectors("api-versions-v")
OFFERED = [name for name in NAMES if "error" not in name]
EVERYTHING = range(1000)


@pytest.mark.parametrize("name", NAMES)
class TestABrokersBytes:
    def test_nothing_to_change_changes_nothing(self, name: str) -> None:
        assert patch_api_versions(vector(name), version_of(name), {}, EVERYTHING) == vector(name)

    def test_truncated(self, name: str) -> None:
        refuses_every_truncation(lambda data: read_api_versions(data, version_of(name)), vector(name))
        refuses_every_truncation(lambda data: patch_api_versions(data, version_of(name), {}, ()), vector(name))

    def test_trailing(self, name: str) -> None:
        refuses_trailing_bytes(lambda data: read_api_versions(data, version_of(name)), vector(name))

    def test_every_buffer(self, name: str) -> None:
        reads_alike_from_every_buffer(lambda data: read_api_versions(data, version_of(name)), vector(name))
        reads_alike_from_every_buffer(
            lambda data: patch_api_versions(data, version_of(name), {}, EVERYTHING), vector(name)
        )


@pytest.mark.parametrize("version", [0, 1, 4])
def test_damage(version: int) -> None:
    few = patch_api_versions(vector(f"api-versions-v{version}"), version, {}, {0, 1, 3, 18, 60})
    survives_damage(lambda data: patch_api_versions(data, version, {1: (4, 17)}, EVERYTHING), few)


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_broker_offers(name: str) -> None:
    offered = read_api_versions(vector(name), version_of(name))
    assert len(offered) == 75
    assert offered[ApiKey.PRODUCE] == (0, 13)
    assert offered[ApiKey.FETCH] == (4, 18)
    assert offered[ApiKey.METADATA] == (0, 13)
    assert offered[ApiKey.SHARE_FETCH] == (1, 2)
    assert api_versions_error(vector(name)) == 0


@pytest.mark.parametrize("name", OFFERED)
def test_ranges_are_cut_and_keys_dropped(name: str) -> None:
    version = version_of(name)
    limits: dict[int, tuple[int, int]] = {
        ApiKey.FETCH: (4, 17),  # lower at the top
        ApiKey.PRODUCE: (3, 99),  # higher at the bottom
        ApiKey.METADATA: (0, 99),  # wider than the broker's
        ApiKey.SHARE_FETCH: (3, 9),  # nothing in common
        ApiKey.LIST_OFFSETS: (11, 11),  # a single one
    }
    known = set(ApiKey) - {ApiKey.SHARE_ACKNOWLEDGE}
    before = read_api_versions(vector(name), version)
    patched = patch_api_versions(vector(name), version, limits, known)
    after = read_api_versions(patched, version)
    assert after == {
        **{
            key: versions
            for key, versions in before.items()
            if key not in (ApiKey.SHARE_FETCH, ApiKey.SHARE_ACKNOWLEDGE)
        },
        ApiKey.FETCH: (4, 17),
        ApiKey.PRODUCE: (3, 13),
        ApiKey.METADATA: (0, 13),
        ApiKey.LIST_OFFSETS: (11, 11),
    }
    assert list(after) == [key for key in before if key in after]
    # All that is not the key list stays: error in front, throttle time and features behind.
    assert patched[:6] == vector(name)[:6]
    behind = {0: 0, 1: 4, 2: 4}.get(version, len(vector(name)) - 7 - 75 * 7)
    assert patched[len(patched) - behind :] == vector(name)[len(vector(name)) - behind :]


@pytest.mark.parametrize("version", range(5))
def test_kafka_python_reads_the_patched_list(version: int) -> None:
    patched = patch_api_versions(vector(f"api-versions-v{version}"), version, {1: (4, 17)}, {1, 3, 18})
    theirs: Any = metadata.ApiVersionsResponse.decode(patched[4:], version=version)
    assert {key.api_key: (key.min_version, key.max_version) for key in theirs.api_keys} == {
        1: (4, 17),
        3: (0, 13),
        18: (0, 4),
    }
    if version >= 3:
        original: Any = metadata.ApiVersionsResponse.decode(vector(f"api-versions-v{version}")[4:], version=version)
        assert theirs.supported_features == original.supported_features
        assert theirs.finalized_features == original.finalized_features
        assert theirs.finalized_features


def test_all_dropped() -> None:
    assert patch_api_versions(vector("api-versions-v0"), 0, {}, ()) == bytes.fromhex("00000000 0000 00000000")
    # 75 keys take one length byte, as none do; more than 126 would take two.
    patched = patch_api_versions(vector("api-versions-v3"), 3, {}, ())
    assert patched[6] == 1
    assert patched[7:] == vector("api-versions-v3")[7 + 75 * 7 :]


def test_a_version_nobody_knows_is_answered_in_the_layout_of_v0() -> None:
    answer = vector("api-versions-v99-error-35")
    assert unsupported_api_versions(99) == answer
    assert api_versions_error(answer) == 35
    for asked in (0, 3, 4, 5, 99):
        assert read_api_versions(answer, asked) == {18: (0, 4)}
        assert patch_api_versions(answer, asked, {18: (0, 3)}, {18}) == answer[:-1] + b"\x03"


def test_the_correlation_id_of_the_local_answer_may_be_any() -> None:
    assert unsupported_api_versions(-2) == bytes.fromhex("fffffffe 0023 00000001 0012 0000 0004")


def test_other_errors_keep_the_layout_that_was_asked_for() -> None:
    answer = vector("api-versions-v3-error-42")
    assert api_versions_error(answer) == 42
    assert read_api_versions(answer, 3) == {}
    with pytest.raises(MalformedError):
        read_api_versions(answer, 0)


def test_tags_of_keys_are_kept() -> None:
    payload = bytes.fromhex("00000001 0000 03 0001 0004 0012 01 05 01 aa 0003 0000 000d 00 00000000 00")
    assert read_api_versions(payload, 3) == {1: (4, 18), 3: (0, 13)}
    assert patch_api_versions(payload, 3, {1: (5, 17)}, {1}) == bytes.fromhex(
        "00000001 0000 02 0001 0005 0011 01 05 01 aa 00000000 00"
    )


@given(st.integers(0, 4), st.binary(max_size=100))
def test_no_bytes_can_lead_it_astray(version: int, data: bytes) -> None:
    try:
        offered = read_api_versions(data, version)
    except MalformedError:
        return
    assert len(offered) * 6 <= len(data)
    # What it lets through comes out with the same meaning (of a key named twice, the last one counts).
    assert read_api_versions(patch_api_versions(data, version, {}, range(-(2**15), 2**15)), version) == offered


@given(
    st.dictionaries(st.integers(0, 200), st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=150),
    st.integers(0, 4),
    st.data(),
)
def test_any_list(ranges: dict[int, tuple[int, int]], version: int, data: st.DataObject) -> None:
    kind: Any = metadata.ApiVersionsResponse

    def payload(keys: dict[int, tuple[int, int]]) -> bytes:
        entries = [
            kind.ApiVersion(version=version, api_key=key, min_version=low, max_version=high)
            for key, (low, high) in keys.items()
        ]
        message = kind(version=version, error_code=0, api_keys=entries, throttle_time_ms=7)
        return b"\x00\x00\x00\x05" + bytes(message.encode())

    known = data.draw(st.sets(st.integers(0, 200)))
    limits = data.draw(st.dictionaries(st.integers(0, 200), st.tuples(st.integers(0, 9), st.integers(0, 9))))
    wanted = {}
    for key, (low, high) in ranges.items():
        both = set(range(low, high + 1)) & set(
            range(limits[key][0], limits[key][1] + 1) if key in limits else range(10)
        )
        if key in known and both:
            wanted[key] = (min(both), max(both))
    assert patch_api_versions(payload(ranges), version, limits, known) == payload(wanted)
