"""Heads of answers: the plain one passes, all others don't, and what passes is read by h11 in the same way."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tierproxy.archive.s3_head import NotPlain, check_head
from tierproxy.ranges import ByteRange

WANTED = ByteRange(100, 350)
FIELDS = [
    b"Server: AmazonS3",
    b'ETag: "b54357faf0632cce46e942fa68356b38"',
    b"Content-Range: bytes 100-349/1000",
    b"Content-Length: 250",
]


def head(*fields: bytes, first: bytes = b"HTTP/1.1 206 Partial Content") -> bytes:
    return b"\r\n".join([first, *(fields or FIELDS), b"", b""])


def test_the_plain_answer_passes() -> None:
    assert check_head(head(), WANTED)
    assert check_head(head(*FIELDS, b"connection:keep-alive"), WANTED)
    assert check_head(head(*FIELDS, b"Content-Encoding: identity", b"X-Empty:"), WANTED)
    assert check_head(head(first=b"HTTP/1.1 206"), WANTED)
    star = [field.replace(b"/1000", b"/*") for field in FIELDS]
    assert check_head(head(*star), WANTED)


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"upgrade"])
def test_a_connection_that_ends_with_the_answer(value: bytes) -> None:
    assert not check_head(head(*FIELDS, b"Connection: " + value), WANTED)


@pytest.mark.parametrize("status", [100, 200, 204, 301, 307, 400, 403, 404, 412, 416, 500, 503])
def test_other_statuses_are_told(status: int) -> None:
    with pytest.raises(NotPlain, match=f"answered {status} Why") as caught:
        check_head(head(first=b"HTTP/1.1 %d Why" % status), WANTED)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Length: 250", b"Length: 249"),
        (b"Length: 250", b"Length: +250"),
        (b"Length: 250", b"Length: 250, 250"),
        (b"Content-Length: 250", b"Content-Length: 250\r\nContent-Length: 250"),
        (b"Content-Length: 250", b"Content-Length : 250"),
        (b"Content-Length: 250", b"X: 1\r\n Content-Length: 250"),
        (b"Content-Length: 250\r\n", b""),
        (b"bytes 100-349/1000", b"bytes 100-350/1000"),
        (b"bytes 100-349/1000", b"bytes 0-249/1000"),
        (b"bytes 100-349/1000", b"100-349/1000"),
        (b"bytes 100-349/1000", b"bytes 100-349"),
        (b"Content-Range: bytes 100-349/1000\r\n", b""),
        (b"Server: AmazonS3", b"Transfer-Encoding: chunked"),
        (b"Server: AmazonS3", b"Content-Encoding: gzip"),
        (b"Server: AmazonS3", b"Content-Type: multipart/byteranges\r\nContent-Range: bytes 1-2/3"),
        (b"Server: AmazonS3", b"Connection: keep-alive\r\nConnection: close"),
        (b"Server: AmazonS3", b"no colon"),
        (b"Server: AmazonS3", b"Server: Amazon\nS3"),
        (b"Server: AmazonS3", b"Server: Amazon\x00S3"),
        (b"Server: AmazonS3", b"Server: one\r two"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/2"),
        (b"HTTP/1.1 206", b"HTTP/1.1 0206"),
        (b"HTTP/1.1 206", b"ICY 206"),
    ],
)
def test_what_is_not_plain(old: bytes, new: bytes) -> None:
    text = head()
    assert old in text
    with pytest.raises(NotPlain):
        check_head(text.replace(old, new, 1), WANTED)


LINES = st.sampled_from(
    [
        *FIELDS,
        *(b"Content-Length: 25", b"content-length:250", b"Content-Length: 250 ", b"Transfer-Encoding: chunked"),
        *(
            b"Connection: close",
            b"Connection: Keep-Alive",
            b" folded",
            b"A:\tb",
            b":",
            b"A b: c",
            b"\x80: 1",
            b"A: \xff",
        ),
    ]
)
FIRSTS = st.sampled_from([b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 206", b"HTTP/1.1 206 ", b"HTTP/1.1  206 x"])


@given(FIRSTS, st.lists(LINES | st.binary(max_size=20), max_size=8))
@example(b"HTTP/1.1 206", FIELDS)
def test_what_passes_is_read_by_h11_in_the_same_way(first: bytes, lines: list[bytes]) -> None:
    text = head(*FIELDS[2:], *lines, first=first)
    if text.find(b"\r\n\r\n") + 4 != len(text):
        return  # the end of a head is found before
    try:
        kept = check_head(text, WANTED)
    except NotPlain:
        return
    there = h11.Connection(h11.CLIENT)
    there.send(h11.Request(method="GET", target="/", headers=[("Host", "s3")]))
    there.send(h11.EndOfMessage())
    there.receive_data(text + bytes(250))
    answer = there.next_event()
    assert isinstance(answer, h11.Response)
    assert answer.status_code == 206
    body = there.next_event()
    assert isinstance(body, h11.Data)
    assert len(body.data) == 250
    assert isinstance(there.next_event(), h11.EndOfMessage)
    assert not kept or there.their_state is h11.DONE
