"""One client's conversation with one broker: bytes in, bytes out, never a wait.

Theory of operation. A broker handles one request per connection at a time and answers in order (SocketServer mutes the
channel), so a ledger of expected answers, first in, first out, is all the state that ties answers to requests. Requests
the proxy answers itself stand in the same ledger, and are answered in their turn. Nothing is ever injected into the
broker's connection: it carries what the client sent, under the client's own authentication, and nothing else.

Of a request, only as much is gathered as its treatment needs (routing/table.py); the rest flows by. So do answers:

      request                        answer
      GATHER ──► known ──► PASS      HEAD ──► PASS      bytes flow by
         │                                ├──► STREAM    a hot fetch: patched as it flows by, its length kept
         └─ whole: those GATHERED         └──► WHOLE     gathered, rewritten; perhaps HELD

HELD: the answer needs something that takes time (`Hold`: archived records, a port to be opened). The shell carries it
out and calls `release` with the finished payload. Until then no later answer is looked at; a broker would not have
come to it either. The shell pauses reading, and what it had read already waits in `_backlog`. Only a run of
ListOffsets is read on, so that what they need is begun together; their answers wait for their turn (`HeldAnswers`).

What this module must not know: sockets, clocks, the archive, what is cached. It reads facts from the `Catalog` and
marks there what is missing.
"""

from collections import deque
from dataclasses import dataclass, field
from struct import Struct

from protocol.api_versions import unsupported_api_versions
from protocol.apis import ApiKey
from protocol.codec import (
    decode_delete_records_request,
    decode_delete_records_response,
    decode_list_offsets_request,
    decode_list_offsets_response,
)
from protocol.endpoints import Endpoint, produce_acks, read_endpoints, rewrite_endpoints
from protocol.errors import ErrorCode, MalformedError
from protocol.fetch import FINAL_EPOCH, INITIAL_EPOCH, FetchRequest, make_sessionless, scan_fetch_request
from protocol.fetch_response import (
    encode_fetch_response,
    error_response,
    parse_fetch_response,
    replace_node_endpoints,
)
from protocol.fetch_stream import FetchStream
from protocol.frames import FrameSplitter, Piece
from protocol.headers import RequestHeader, read_request_header
from protocol.messages import DeleteRecordsRequest, ListOffsetsRequest
from protocol.wire import Buffer
from tierproxy.addresses import Addresses
from tierproxy.catalog import Catalog
from tierproxy.routing import fetch as fetch_routing
from tierproxy.routing import handshake
from tierproxy.routing import offsets as offsets_routing
from tierproxy.routing.deletes import deletions
from tierproxy.routing.holds import Client, DeletesHold, EndpointsHold, FetchHold, HeldAnswers, Hold, OffsetsHold
from tierproxy.routing.stream import StreamPatch
from tierproxy.routing.table import ENDPOINTS_SINCE, Treatment, offered_versions, offers, treatment
from tierproxy.sasl import MOST_NAME
from tierproxy.telemetry.traffic import TRAFFIC, Tier

HEAD_BYTES = 72 * 1024
"""Enough for a header with the longest client id and a transactional id: what can't be told from it is malformed."""

SMALL_ANSWER = 4096
"""Fetch answers up to this many bytes are gathered: one that tells of a moved leader is small, and gets its address."""

GATHERED = (
    Treatment.FETCH,
    Treatment.LIST_OFFSETS,
    Treatment.DELETE_RECORDS,
    Treatment.API_VERSIONS,
    Treatment.SASL_HANDSHAKE,
    Treatment.SASL_AUTHENTICATE,
)
"""Whose requests are read whole."""

GATHERED_LIMIT = 2 << 20
"""Largest request that is read whole, in bytes: some 50,000 partitions. Scanning one takes time that others wait."""

PORTION = 64 << 10
"""Bytes from a client that are looked at before it is asked again whether too much is unanswered."""

OWED_LIMIT = 4 << 20
"""Bytes of unanswered requests that were read whole, of one connection, before it is no longer read."""

ANSWER_LIMIT = 2**31 - 1

HOT_SECONDS = 10.0
"""For so long a connection counts as one that reads hot records after it has asked for any."""

TLS_HELLO = b"\x16\x03"
"""How the first bytes of a client begin that speaks TLS."""

_PASS = Treatment.PASS  # the usual case by far; naming it takes a part of what else is done for one request
_INT32 = Struct(">i")


_Remembered = FetchRequest | ListOffsetsRequest | DeleteRecordsRequest | handshake.Refusal | handshake.Claim
"""What the answer is read by."""


@dataclass(slots=True)
class _Expected:
    """An answer the broker owes."""

    header: RequestHeader
    treatment: Treatment
    request: _Remembered | None = None
    hold: bool = False
    asked_at: float = 0.0
    took: float = 0.0  # until its answer began
    size: int = 0  # of the request as it came, where it is kept in `request`


@dataclass(slots=True)
class Conversation:
    """Feed it with `from_client`, `from_broker` and `release`; then take what is in `to_client` and `to_broker`.

    `now`, in seconds, is the shell's to keep right: nothing here is decided by it, fetches are told when they came.
    What is in `to_carry_out` the shell begins, and calls `release` at its end; `held` is the one whose turn it is to be
    answered. `closing`, once set, says why the conversation is over: what is in `to_client` may still be sent, nothing
    more is read.
    """

    catalog: Catalog
    addresses: Addresses
    request_limit: int
    unanswered_limit: int = 1000
    host: str = ""  # the client's
    now: float = 0.0
    to_client: list[Buffer] = field(default_factory=list)
    to_broker: list[Buffer] = field(default_factory=list)
    to_carry_out: list[Hold] = field(default_factory=list)
    held: Hold | None = None
    closing: str | None = None
    leaving: bool = False  # requests that have not begun to be forwarded never are; their client asks somebody else
    requests_seen: int = 0

    _requests: FrameSplitter = field(init=False)
    _answers: FrameSplitter = field(init=False)
    _head: bytearray = field(default_factory=bytearray)  # of the request being gathered
    _request_passes: bool = False
    _arrived: deque[memoryview] = field(default_factory=deque)  # of requests, while too many are unanswered
    _unread: deque[Piece] = field(default_factory=deque)  # of the portion that is being read
    _owed: int = 0  # the sizes in the ledger
    _login: handshake.Login = field(default_factory=handshake.Login)
    _hot_at: float = -HOT_SECONDS  # when something was fetched last that is on the broker
    _ledger: deque[_Expected | bytes] = field(default_factory=deque)  # bytes: an answer of our own
    _current: _Expected | None = None  # whose answer is being read
    _answer: bytearray = field(default_factory=bytearray)  # gathered of it
    _stream: FetchStream | None = None
    _answer_passes: bool = False
    _line: HeldAnswers = field(default_factory=HeldAnswers)
    _held_for: list[tuple[Hold, _Expected]] = field(default_factory=list)  # whose answers are held
    _fetches_held: int = 0
    _backlog: deque[Piece] = field(default_factory=deque)
    _last: str | None = None  # no request is taken any more; once the last answer is sent, this is why it is over

    def __post_init__(self) -> None:
        self._requests = FrameSplitter(self.request_limit)
        self._answers = FrameSplitter(ANSWER_LIMIT)

    @property
    def unanswered(self) -> int:
        """How many requests are waiting for an answer."""
        return len(self._ledger) + (self._current is not None)

    @property
    def idle(self) -> bool:
        """Whether every request that was forwarded, or has begun to be, is answered."""
        return self.unanswered == 0 and self.held is None and not self._request_passes

    @property
    def user(self) -> str | None:
        """The SASL user that the broker has accepted, as far as that can be told."""
        return self._login.user

    @property
    def crowded(self) -> bool:
        """Whether so much is unanswered that no more requests are read."""
        unanswered = len(self._ledger) + (self._current is not None)
        return unanswered > self.unanswered_limit or self._owed > OWED_LIMIT

    @property
    def begun(self) -> int | None:
        """The number of the request of which a part has come that can't be forwarded yet; None if there is no such."""
        waits = not (self._request_passes or self._requests.between_frames)
        return self.requests_seen if waits or self._head else None

    @property
    def gathered(self) -> int:
        """Bytes in memory of messages that are not complete, or held."""
        return len(self._head) + len(self._answer) + self._line.size

    # -- the client's side ------------------------------------------------------------------------------------------

    def from_client(self, data: Buffer) -> None:
        if self.closing is not None or self._last is not None:
            return
        self._arrived.append(memoryview(data))
        self._read_requests()

    def _read_requests(self) -> None:
        begins = bytes(self._arrived[0][:2]) if self._arrived and not self.requests_seen else b""
        try:
            while self._last is None and (self._unread or (self._arrived and self._split())):
                if self.leaving and not self._request_passes:
                    self._unread.clear()
                    self._arrived.clear()
                    break
                if self.crowded:
                    self._send_own_answers()
                    if self.crowded:
                        break
                self._request_piece(self._unread.popleft())
        except MalformedError as fault:
            self.closing = f"the client sent a malformed request: {fault}"
            if self.requests_seen == 0 and begins == TLS_HELLO:
                self.closing = "the client speaks TLS, and this port does not (listen.tls)"
        self._send_own_answers()

    def _split(self) -> bool:
        """Have unread pieces, if more has arrived: a portion at a time, as pieces take memory."""
        while self._arrived and not self._unread:
            data = self._arrived.popleft()
            if len(data) > PORTION:
                self._arrived.appendleft(data[PORTION:])
            self._unread.extend(self._requests.feed(data[:PORTION]))
        return bool(self._unread)

    def _request_piece(self, piece: Piece) -> None:
        last = piece.last
        if self._request_passes:
            self.to_broker.append(piece.data)
            self._request_passes = not last
            return
        head: bytes | bytearray
        if last and not self._head:  # the usual case: it is copied once only
            head = bytes(piece.data)
        else:
            self._head += piece.data
            if not last and len(self._head) < HEAD_BYTES:
                return
            head = bytes(self._head) if last else self._head
        if self.requests_seen == 0 and (fault := handshake.first_frame(head)) is not None:
            raise MalformedError(fault)
        header = read_request_header(head)
        how = treatment(header.api_key)
        gathered = how is not _PASS and how in GATHERED
        if gathered:
            if piece.size > GATHERED_LIMIT:
                raise MalformedError(f"a request of API {header.api_key} with {piece.size} bytes")
            if not last:
                return
        if self._head:
            self._head = bytearray()
        self.requests_seen += 1
        before = len(self._ledger)
        self._request(header, how, head, piece)
        TRAFFIC.asked(header.api_key, piece.size)
        if len(self._ledger) > before and isinstance(owed := self._ledger[-1], _Expected):
            owed.asked_at = self.now
            if gathered and owed.request is not None:
                owed.size = piece.size
                self._owed += piece.size

    def _request(self, header: RequestHeader, how: Treatment, head: bytes | bytearray, piece: Piece) -> None:
        if not offers(header.api_key, header.version):
            if how is Treatment.API_VERSIONS:
                self._ledger.append(unsupported_api_versions(header.correlation_id))
                return
            raise MalformedError(f"API {header.api_key} in version {header.version} is not offered")
        if how is _PASS:
            self._ledger.append(_Expected(header, how))
        elif how is Treatment.FETCH:
            head = self._fetch_request(header, bytearray(head))
        elif how is Treatment.LIST_OFFSETS:
            offsets = decode_list_offsets_request(head[header.body_at :], header.version)
            self._ledger.append(_Expected(header, how, offsets))
        elif how is Treatment.DELETE_RECORDS:
            deletes = decode_delete_records_request(head[header.body_at :], header.version)
            self._ledger.append(_Expected(header, how, deletes))
        elif how is Treatment.SASL_HANDSHAKE:
            if not self._handshake_request(header, head):
                return
        elif how is Treatment.SASL_AUTHENTICATE:
            self._ledger.append(_Expected(header, how, self._login.message(header, head)))
        elif how is Treatment.PRODUCE:
            acks = produce_acks(head, header)
            if acks is None:
                raise MalformedError("a Produce request without acks")
            if acks != 0:  # with acks=0 no answer will come
                self._ledger.append(_Expected(header, how))
        else:
            self._ledger.append(_Expected(header, how))
        if not head:
            return
        self.to_broker.append(_INT32.pack(piece.size))
        self.to_broker.append(head)
        self._request_passes = not piece.last

    def _handshake_request(self, header: RequestHeader, head: bytes | bytearray) -> bool:
        """Whether to forward it."""
        refusal = handshake.refuse(header, head)
        if refusal is None:
            self._login.handshake(header, head)
            self._ledger.append(_Expected(header, Treatment.PASS))
        elif refusal.answer is None:
            self._ledger.append(_Expected(header, Treatment.SASL_HANDSHAKE, refusal))
        else:
            self._ledger.append(refusal.answer)
            self._last = refusal.why
            return False
        return True

    def _fetch_request(self, header: RequestHeader, payload: bytearray) -> bytearray:
        """What to forward of a fetch: made sessionless, in place; nothing, where we answer ourselves."""
        request = scan_fetch_request(payload, header)
        if request.replica_id >= 0:  # a follower, or who claims to be one: the broker knows what to say
            self._ledger.append(_Expected(header, Treatment.FETCH))
            return payload
        if request.session_at is not None:
            if request.session_epoch not in (INITIAL_EPOCH, FINAL_EPOCH):
                # Upstream there are no sessions, so this one is unknown: the client goes on with full fetches.
                unknown = error_response(header.version, header.correlation_id, ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
                self._ledger.append(unknown)
                return bytearray()
            make_sessionless(payload, request)
        hold = fetch_routing.expects_cold(request, self.catalog)
        if not hold:
            self._hot_at = self.now
        else:
            # max_bytes lies before the isolation level, which lies before the session, where there is one (v7+)
            at = header.body_at + 12 if request.session_at is None else request.session_at - 5
            _INT32.pack_into(payload, at, fetch_routing.reserve_for_cold(request, self.catalog))
        self._ledger.append(_Expected(header, Treatment.FETCH, request, hold))
        return payload

    # -- the broker's side ------------------------------------------------------------------------------------------

    def from_broker(self, data: Buffer) -> None:
        if self.closing is not None:
            return
        try:
            self._backlog.extend(self._answers.feed(data))
            self._read_answers()
        except MalformedError as fault:
            self.closing = f"the broker sent an answer that can't be understood: {fault}"

    def passes(self, size: int) -> bool:
        """Whether the broker's next `size` bytes are nothing but the middle of something that flows by.

        If so they count as read, and the shell hands them to the client itself.
        """
        if not self._answer_passes and self._stream is None:
            return False
        if self._backlog or self.held is not None or self.closing is not None or size >= self._answers.left:
            return False
        if not self._answer_passes and not (self._stream is not None and self._stream.passes(size)):
            return False
        self._answers.skip(size)
        return True

    @property
    def behind(self) -> bool:
        """Whether there are views here of what was fed to `from_client`."""
        return bool(self._arrived or self._unread or self.to_broker)

    @property
    def backlogged(self) -> bool:
        """Whether there are views in `_backlog` of what was fed to `from_broker`."""
        return bool(self._backlog)

    @property
    def listens(self) -> bool:
        """Whether the broker's next answer can be looked at now."""
        if self.held is None:
            return True
        if not isinstance(self.held, OffsetsHold) or self._line.full:
            return False
        following = self._current or (self._ledger[0] if self._ledger else None)
        return isinstance(following, _Expected) and following.treatment is Treatment.LIST_OFFSETS

    def release(self, payload: list[Buffer], hold: Hold | None = None) -> None:
        """`hold`, by default the first one, is finished: `payload` is sent in its turn, and reading goes on."""
        finished = hold or self.held
        assert finished is not None
        self._count_held(finished, payload)
        for each in self._line.finish(finished, payload):
            self._send(each)
        self.held = self._line.first
        try:
            self._read_answers()
        except MalformedError as fault:
            self.closing = f"the broker sent an answer that can't be understood: {fault}"

    def _count_held(self, hold: Hold, payload: list[Buffer]) -> None:
        at = next(at for at, (each, _) in enumerate(self._held_for) if each is hold)
        _, asked = self._held_for.pop(at)
        tier: Tier = "hot" if isinstance(hold, EndpointsHold) else "cold"
        size = sum(len(part) for part in payload)
        TRAFFIC.answered(asked.header.api_key, size, self.now - asked.asked_at, tier)

    def _read_answers(self) -> None:
        while self._backlog and self.listens:
            self._answer_piece(self._backlog.popleft())
        if self.held is None:
            self._send_own_answers()
        if self.closing is None and (self._unread or self._arrived):
            self._read_requests()

    def _send_own_answers(self) -> None:
        if self._current is None and self.held is None:
            while self._ledger and isinstance(self._ledger[0], bytes):
                self._send([self._ledger.popleft()])  # type: ignore[list-item]  # just seen to be bytes
            if self._last is not None and not self._ledger:
                self.closing = self._last

    def _answer_piece(self, piece: Piece) -> None:
        last = piece.last
        if self._answer_passes:
            self.to_client.append(piece.data)
        elif self._stream is not None:
            self.to_client.extend(self._stream.feed(piece.data))
            if last:
                self._stream.finish()
        elif self._current is not None:
            self._answer += piece.data
            if last:
                self._whole_answer(self._current, bytes(self._answer))
        elif len(piece.data) >= 4 and not self._answer:
            self._begin_answer(piece, piece.data, last)
        else:  # its first bytes come in parts
            self._answer += piece.data
            if len(self._answer) < min(4, piece.size):
                return
            head = bytes(self._answer)
            self._answer.clear()
            self._begin_answer(piece, head, last)
        if last:
            asked = self._current
            if asked is not None and not (self._held_for and self._held_for[-1][1] is asked):
                TRAFFIC.answered(asked.header.api_key, piece.size, asked.took)
            self._current = self._stream = None
            self._answer_passes = False
            self._answer.clear()

    def _begin_answer(self, piece: Piece, head: bytes | memoryview, last: bool) -> None:
        """Its correlation id is there: find out whose answer this is, and what becomes of it. `head`: all until now."""
        if self._ledger and isinstance(self._ledger[0], bytes):
            self._send_own_answers()
        if not self._ledger or piece.size < 4:
            raise MalformedError("an answer that nobody asked for")
        expected = self._ledger.popleft()
        assert isinstance(expected, _Expected)
        self._owed -= expected.size
        (correlation_id,) = _INT32.unpack_from(head)
        if correlation_id != expected.header.correlation_id:
            raise MalformedError(f"answer {correlation_id} in place of answer {expected.header.correlation_id}")
        self._current = expected
        expected.took = self.now - expected.asked_at
        if self._must_gather(expected, piece.size):
            if last:
                self._whole_answer(expected, bytes(head))
            else:
                self._answer += head
            return
        self.to_client.append(_INT32.pack(piece.size))
        if expected.treatment is Treatment.FETCH:
            request = expected.request
            patch = StreamPatch(self.catalog, request) if isinstance(request, FetchRequest) else StreamPatch(None)
            self._stream = FetchStream(expected.header.version, patch.decide)
            self.to_client.extend(self._stream.feed(head))
            if last:
                self._stream.finish()
        else:
            self._answer_passes = True
            self.to_client.append(head)

    def _must_gather(self, expected: _Expected, size: int) -> bool:
        how = expected.treatment
        if how is _PASS:
            return False
        match how:
            case Treatment.FETCH:
                small = size <= SMALL_ANSWER and expected.header.version >= 16
                return expected.hold or (small and expected.request is not None)
            case Treatment.PRODUCE:
                return expected.header.version >= ENDPOINTS_SINCE[ApiKey.PRODUCE]
            case _:
                return True

    # -- whole answers ----------------------------------------------------------------------------------------------

    def _whole_answer(self, expected: _Expected, payload: bytes) -> None:
        header = expected.header
        match expected.treatment:
            case Treatment.FETCH:
                assert isinstance(expected.request, FetchRequest)
                self._fetch_answer(expected, expected.request, payload)
            case Treatment.LIST_OFFSETS:
                assert isinstance(expected.request, ListOffsetsRequest)
                response = decode_list_offsets_response(payload, header.version)
                questions = offsets_routing.questions(response, expected.request, self.catalog)
                if questions:
                    self._hold(OffsetsHold(header.version, header.correlation_id, response, questions), payload)
                elif self.held is None:
                    self._send([payload])
                else:
                    self._line.put(None, [payload], len(payload))
            case Treatment.DELETE_RECORDS:
                assert isinstance(expected.request, DeleteRecordsRequest)
                deleted = decode_delete_records_response(payload, header.version)
                archived = deletions(deleted, expected.request, self.catalog)
                if archived:
                    self._hold(DeletesHold(header.version, header.correlation_id, deleted, archived), payload)
                else:
                    self._send([payload])
            case Treatment.SASL_HANDSHAKE:
                assert isinstance(expected.request, handshake.Refusal)
                self._send([handshake.refused_answer(header, payload)])
                self.closing = expected.request.why
            case Treatment.SASL_AUTHENTICATE:
                assert isinstance(expected.request, handshake.Claim)
                self._login.answer(expected.request, header, payload)
                self._send([payload])
            case Treatment.API_VERSIONS:
                self._send([payload[:4], offered_versions(payload[4:], header.version)])
            case _:
                self._endpoints_answer(header, payload)

    def _fetch_answer(self, expected: _Expected, request: FetchRequest, payload: bytes) -> None:
        response = parse_fetch_response(payload, request.version)
        response.tags = replace_node_endpoints(response.tags, self.addresses.advertised)
        refused = fetch_routing.refused(response, request, self.catalog)
        if refused:
            name = (expected.header.client_id or b"")[:MOST_NAME].decode("utf-8", "replace")
            client = Client(name, self.user, self.host)
            self._fetches_held += 1
            hold = FetchHold(request, response, refused, expected.asked_at, client, number=self._fetches_held)
            if not hold.all_cold:
                self._hot_at = self.now
            hold.reads_hot = self.now - self._hot_at < HOT_SECONDS
            self._hold(hold, payload)
            return
        fetch_routing.show_log_starts(response, self.catalog)
        self._send(encode_fetch_response(response))

    def _endpoints_answer(self, header: RequestHeader, payload: bytes) -> None:
        endpoints: list[Endpoint] = read_endpoints(header.api_key, header.version, payload)
        unheard_of = self.addresses.note(endpoints)
        if unheard_of:
            self._hold(EndpointsHold(unheard_of, header.api_key, header.version, payload), payload)
        else:
            self._send(rewrite_endpoints(header.api_key, header.version, payload, self.addresses.advertised))

    def _hold(self, hold: Hold, payload: bytes) -> None:
        assert self._current is not None
        self._held_for.append((hold, self._current))
        self._line.put(hold, [], len(payload))
        self.to_carry_out.append(hold)
        self.held = self._line.first

    def _send(self, payload: list[Buffer]) -> None:
        self.to_client.append(_INT32.pack(sum(map(len, payload))))
        self.to_client.extend(payload)
