"""What FetchStream refuses; what it does with good bytes is in test_fetch_stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError, TruncatedError
from protocol.fetch_response import encode_fetch_response
from protocol.fetch_stream import MAX_TOPIC_NAME, FetchStream
from tests.unit.protocol.reading import survives_damage
from tests.unit.protocol.test_fetch_response import a_partition, a_response
from tests.unit.protocol.test_fetch_stream import leave, patch, stream
from tests.vectors import vector, vectors, version_of


@pytest.mark.parametrize("name", vectors("fetch-v"))
def test_truncated_anywhere(name: str) -> None:
    payload = vector(name)
    for cut in range(len(payload)):
        patcher = FetchStream(version_of(name), patch)
        patcher.feed(payload[:cut])
        assert not patcher.done
        with pytest.raises(TruncatedError):
            patcher.finish()


@pytest.mark.parametrize("name", vectors("fetch-v"))
def test_trailing_bytes(name: str) -> None:
    payload = vector(name)
    with pytest.raises(MalformedError, match="after the end"):
        FetchStream(version_of(name), patch).feed(payload + b"\x00")
    patcher = FetchStream(version_of(name), patch)
    patcher.feed(payload)
    assert patcher.done
    with pytest.raises(MalformedError, match="after the end"):
        patcher.feed(b"\x00")


@pytest.mark.parametrize("version", [4, 7, 12, 17])
@pytest.mark.parametrize("step", [1, 10_000])
def test_damage(version: int, step: int) -> None:
    def read(data: bytes) -> None:
        patcher = FetchStream(version, leave)
        for at in range(0, len(data), step):
            patcher.feed(data[at : at + step])
        patcher.finish()

    payload = vector(f"fetch-v{version}")
    survives_damage(read, payload if step > 1 else payload[:120])


@given(st.integers(4, 18), st.binary(max_size=300), st.integers(1, 300))
def test_no_bytes_can_lead_it_astray(version: int, data: bytes, step: int) -> None:
    patcher = FetchStream(version, patch)
    fed = gone = 0
    try:
        for at in range(0, len(data), step):
            chunk = data[at : at + step]
            fed += len(chunk)
            gone += sum(len(piece) for piece in patcher.feed(chunk))
            assert gone <= fed
    except MalformedError:
        pass


_TOP = "00000005 00 00000000 0000 00000000"
_FIXED = "00000000 0000" + "00" * 24


@pytest.mark.parametrize(
    ("version", "payload", "why"),
    [
        (17, _TOP + "00", "null topics"),
        (4, "00000005 00000000 ffffffff", "null topics"),
        (4, "00000005 00000000 fffffffe", "minus two topics"),
        (17, _TOP + "02" + "69" * 16 + "00", "null partitions"),
        (12, _TOP + "02 00", "a topic without a name"),
        (4, "00000005 00000000 00000001 ffff", "a topic without a name"),
        (12, _TOP + "02 ffffffff0f", "a name of four billion bytes"),
        (12, _TOP + "02 02 ff 01", "a name that is not text"),
        (12, _TOP + "ffffffffff7f", "a count that is no varint"),
        (4, "00000005 00000000 00000001 0001 61 00000001" + "00" * 22 + "fffffffe" + "00000000", "minus two aborted"),
        (4, "00000005 00000000 00000001 0001 61 00000001" + "00" * 22 + "ffffffff fffffffe", "minus two records"),
        (17, _TOP + "02" + "69" * 16 + "02" + _FIXED + "00 ffffffff 01 8180 01", "too many tags"),
        (16, _TOP + "01 01 8000 00", "tag 0 in two bytes"),
        (17, "00000005 8180 01", "too many tags in the header"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_malformed(version: int, payload: str, why: str, step: int) -> None:
    data = bytes.fromhex(payload)
    patcher = FetchStream(version, leave)
    with pytest.raises(MalformedError) as caught:
        [patcher.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert not isinstance(caught.value, TruncatedError)


def test_the_longest_name() -> None:
    def payload(size: int) -> bytes:
        return b"".join(encode_fetch_response(a_response(12, a_partition(12, topic="x" * size))))

    data = payload(MAX_TOPIC_NAME)
    assert stream(data, 12, [20, 700, 30_000], leave) == data
    with pytest.raises(MalformedError, match="32768"):
        FetchStream(12, leave).feed(payload(MAX_TOPIC_NAME + 1))


@pytest.mark.parametrize("failure", [IndexError("mine"), TruncatedError("mine")])
def test_a_fault_of_the_one_who_decides_is_not_taken_for_a_lack_of_bytes(failure: Exception) -> None:
    def fail(topic: str | bytes, index: int, error: int, log_start: int) -> None:
        raise failure

    with pytest.raises(RuntimeError) as caught:
        FetchStream(17, fail).feed(vector("fetch-v17"))
    assert caught.value.__cause__ is failure
    with pytest.raises(RuntimeError):
        FetchStream(17, lambda topic, index, error, start: (error, 1 << 63)).feed(vector("fetch-v17"))


@pytest.mark.parametrize("version", [3, 19])
def test_unknown_versions(version: int) -> None:
    with pytest.raises(ValueError, match="4 to 18"):
        FetchStream(version, leave)
