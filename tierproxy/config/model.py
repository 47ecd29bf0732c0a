"""The configuration as one frozen tree: what each key means, its unit and its default.

Fields are named after what the program counts in (`time_ms`), keys after what a person writes (`time: 7d`).
The JSON schema that editors use and the did-you-mean of unknown keys are drawn from this tree, so a key
exists in one place only. Rules that look at more than one key are in `rules.py`, because they must also be
told when some other key is broken.
"""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tierproxy.config.fields import (
    Brokers,
    ByteRate,
    ClientPattern,
    ClusterName,
    DurationMs,
    GroupName,
    Host,
    NodeTemplate,
    Port,
    Secret,
    SizeBytes,
    StorageClass,
    Workers,
    count_within,
    duration_within,
    size_within,
)
from tierproxy.config.patterns import glob
from tierproxy.config.policies import PolicyDefaults, TopicPolicy
from tierproxy.config.prices import PricesConfig, StorePrices
from tierproxy.config.section import Section
from tierproxy.rates import part_of
from tierproxy.sasl import MechanismName


class SaslConfig(Section):
    """The service account. Files are read again for every connection, so what they hold may be replaced."""

    mechanism: MechanismName
    """How it proves who it is; the brokers' listener must offer it."""
    username: str | None = None
    """Of PLAIN and SCRAM."""
    password: Secret | None = None
    """Of PLAIN and SCRAM; better from `${ENV}` than written here."""
    password_file: Path | None = None
    """A file with nothing but the password, instead of it."""
    token: Secret | None = None
    """Of OAUTHBEARER, instead of user and password."""
    token_file: Path | None = None
    """A file with nothing but the token, instead of it."""


class BrokerTlsConfig(Section):
    """How brokers prove who they are, and the service account if it does so by certificate."""

    ca_file: Path | None = None
    """Authorities whose certificates are trusted (PEM); None = the machine's own."""
    cert_file: Path | None = None
    """The service account's certificate (PEM). Clients' own connections never show it."""
    key_file: Path | None = None
    """The certificate's private key (PEM, without a passphrase)."""
    verify_hostname: bool = True
    """False: any certificate that the authorities have signed will do, whatever its name."""
    server_name: Host | None = None
    """The name to ask for and verify, if it isn't the one that is connected to."""


class SecurityConfig(Section):
    """How brokers are spoken to. SSL and SASL_SSL hold for clients' own connections as well; the account does not:
    clients bring their own."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """That of the brokers' listener which `bootstrap` names."""
    sasl: SaslConfig | None = None
    """tierproxy's own account, where the protocol has SASL."""
    tls: BrokerTlsConfig = BrokerTlsConfig()
    """Where the protocol has SSL."""

    @property
    def encrypted(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        """By SASL, that is."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")


class ClusterConfig(Section):
    """The Kafka cluster behind the proxy."""

    name: ClusterName
    """Names the archive's folder; another name is another archive."""
    bootstrap: Brokers
    """Brokers to ask first; the others are learnt from them."""
    security: SecurityConfig = SecurityConfig()
    """How brokers are spoken to."""


class ListenTlsConfig(Section):
    """TLS for clients. When the files change, new connections use the new ones."""

    cert_file: Path
    """Our certificate, followed by those of the authorities between it and the root (PEM)."""
    key_file: Path
    """Its private key (PEM, without a passphrase)."""


class SniConfig(Section):
    """Names by which clients choose a broker on the one port, instead of a port for each."""

    bootstrap: Host
    """The name that clients have as their bootstrap server."""
    broker: NodeTemplate
    """With `{node}` where the broker's id stands."""


class ListenConfig(Section):
    """Where clients connect. `port` is bootstrap, broker `n` is at `port + 1 + n`; with `sni` all are at `port`."""

    host: Host = "0.0.0.0"
    """The address of this machine to listen at; 0.0.0.0 is all of them."""
    port: Port = 9192
    """Bootstrap. With ports, as many above it must be free as the highest broker id plus one."""
    advertised_host: Host | None = None
    """The name clients are told to come back to: it must lead to this machine from where they are. Not with `sni`."""
    tls: ListenTlsConfig | None = None
    """Without it, clients connect in plaintext."""
    sni: SniConfig | None = None
    """One port for all brokers, told apart by server names; needs `tls`."""
    enabled: bool = True
    """False: this process archives but serves no clients."""
    drain_delay_ms: Annotated[DurationMs, Field(alias="drain_delay"), duration_within(0, 3_600_000)] = 0
    """When the process is asked to stop: how long it says so at /ready and serves all the same, new clients too."""
    drain_ms: Annotated[DurationMs, Field(alias="drain"), duration_within(0, 3_600_000)] = 5_000
    """How long open requests may finish after that."""


LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class AdminConfig(Section):
    """The port for /metrics, /live, /ready and the dashboard. With a login, only /live and /ready answer anybody."""

    host: Host = "127.0.0.1"
    """The address of this machine to listen at; other machines reach it only if this is not loopback."""
    port: Port = 9180
    """One that no broker is served at."""
    dashboard: bool | None = None
    """None: where this port is the machine's own (127.0.0.1) or asks for a login."""
    username: str | None = None
    """Who may look (HTTP's basic authentication); with a password."""
    password: Secret | None = None
    """Belongs to `username`; better from `${ENV}` than written here."""
    password_file: Path | None = None
    """Files are read again for every request, so what they hold may be replaced."""
    token: Secret | None = None
    """Another way in, for programs: `Authorization: Bearer <token>`."""
    token_file: Path | None = None
    """A file with nothing but the token, instead of it."""

    @property
    def asks_for_login(self) -> bool:
        return any((self.password, self.password_file, self.token, self.token_file))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOCAL_HOSTS

    @property
    def shows_dashboard(self) -> bool:
        return self.is_local or self.asks_for_login if self.dashboard is None else self.dashboard


def _archive_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL; write s3://bucket/prefix or file:///absolute/path") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials: use access_key and secret_key (or *_file)")
    if parts.query or parts.fragment:
        raise ValueError("must not hold '?' or '#'")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(f"{value!r} needs an absolute path: file:///var/lib/tierproxy (three slashes)")
        if unquote(parts.path).strip("/") == "":
            raise ValueError("must name a directory, for example file:///var/lib/tierproxy")
    elif parts.scheme == "s3":
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", parts.netloc):
            raise ValueError(f"{value!r} names no bucket; write s3://bucket/prefix")
    else:
        raise ValueError(f"{value!r} is not an archive's address; write s3://bucket/prefix or file:///path")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("must look like https://host or http://host:port, without credentials")
    return value


class ArchiveConfig(Section):
    """One bucket or directory. Without keys, `s3` uses the machine's own AWS credentials."""

    url: Annotated[str, AfterValidator(_archive_url)]
    """`s3://bucket/prefix`, where the bucket exists, or `file:///absolute/path`."""
    region: str | None = None
    """Of the bucket; None = as the machine's AWS settings say."""
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = None
    """For S3-compatible stores other than AWS."""
    access_key: Secret | None = None
    """The key's id; None = the machine's own credentials."""
    access_key_file: Path | None = None
    """Files with keys are read again while we run, so what they hold may be replaced."""
    secret_key: Secret | None = None
    """Belongs to `access_key`; better from `${ENV}` than written here."""
    secret_key_file: Path | None = None
    """A file with nothing but the secret key, instead of it."""
    session_token: Secret | None = None
    """Of temporary keys."""
    session_token_file: Path | None = None
    """A file with nothing but the session token, instead of it."""
    storage_class: StorageClass | None = None
    """Of segments, where the topic's policy names none; None = the bucket's default. Not one that must be thawed."""
    prices: StorePrices = StorePrices()
    """What is other here than `prices` says."""


SECRET_KEYS = ("access_key", "secret_key", "session_token")
"""Keys of an archive that may also be given as `<key>_file`."""
SASL_SECRET_KEYS = ("password", "token")
"""Keys of the service account, and of the admin port, that may also be given as `<key>_file`."""
S3_KEYS = ("region", "endpoint_url", "storage_class", *SECRET_KEYS, *(f"{key}_file" for key in SECRET_KEYS))
"""Keys of an archive that mean nothing for a directory."""


def _cache_folder(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError(f"{str(value)!r} must be an absolute path, for example /var/cache/tierproxy")
    if value == Path("/"):
        raise ValueError("must be a directory of its own, for example /var/cache/tierproxy")
    return value


class DiskCacheConfig(Section):
    """A directory for such chunks, which processes of one machine may share. Losing it costs time only."""

    path: Annotated[Path, AfterValidator(_cache_folder)]
    """A directory of its own: it is made if need be, and refused if something else is in it."""
    size: Annotated[SizeBytes, size_within(256 * 2**20, 2**50)]
    """Of all files there, of all processes together."""


class CacheConfig(Section):
    """Compressed chunks of cold segments that were read lately."""

    memory: Annotated[SizeBytes, size_within(2**20, 2**50)] = 256 * 2**20
    """Of all workers together."""
    disk: DiskCacheConfig | None = None
    """More of them in files."""


class GarbageConfig(Section):
    """Objects in an archive that nothing needs: merged away, expired, or left by an archiver that died."""

    grace_ms: Annotated[DurationMs, Field(alias="grace"), duration_within(600_000, 365 * 86_400_000)] = 86_400_000
    """How long they stay, for readers who don't know it yet."""
    delete: bool = True
    """False: they are counted and stay, for buckets where nothing may be deleted."""


class ArchiverConfig(Section):
    """The part that copies, trims, and keeps the archive in order."""

    enabled: bool = True
    """False: this process serves clients but archives nothing."""
    spool: Path | None = None
    """Directory for segments that are being written; None = the system's temporary directory."""
    metadata_interval_ms: Annotated[DurationMs, Field(alias="metadata_interval"), duration_within(100, 3_600_000)] = (
        10_000
    )
    """How soon new topics, partitions and leaders are noticed."""
    fetch_wait_ms: Annotated[DurationMs, Field(alias="fetch_wait"), duration_within(1, 30_000)] = 500
    """How long a broker may hold a fetch that finds nothing new."""
    fetch_bytes: Annotated[SizeBytes, size_within(1024, 2**30)] = 16 * 2**20
    """Per fetch and broker: bounds the archiver's memory."""
    uploads: Annotated[int, count_within(1, 64)] = 2
    """Segments that are stored at the same time."""
    group: GroupName = "tierproxy-archiver-{cluster}"
    """The consumer group of all archivers of this cluster with the same archives: they share its partitions.
    `{cluster}` stands for cluster.name. None (written `none`) = this one works on everything alone."""
    session_timeout_ms: Annotated[DurationMs, Field(alias="session_timeout"), duration_within(1_000, 1_800_000)] = (
        10_000
    )
    """How soon the others take over when an archiver dies without a word. Brokers allow 6 s to 30 min by default."""
    trim_delay_ms: Annotated[DurationMs, Field(alias="trim_delay"), duration_within(0, 86_400_000)] = 0
    """How long after its start it trims nothing. Gateways that are restarted beside it with the same new file may not
    know yet that a topic is archived, and would pass on that what is trimmed is out of range."""
    read_rate: ByteRate = None
    """Most bytes of log that are read from the brokers in a second, all together; None (`none`) = no limit."""
    write_rate: ByteRate = None
    """The same for what is written to archives. It holds on average: a segment is sent in one go, the next one waits.
    """
    upkeep_interval_ms: Annotated[DurationMs, Field(alias="upkeep_interval"), duration_within(100, 86_400_000)] = (
        300_000
    )
    """How often to look for what has expired or may be merged: a read of the manifest for each partition."""
    merge: bool = True
    """Small segments are joined to larger ones, up to the policy's `segment.bytes`."""
    merge_after_ms: Annotated[DurationMs, Field(alias="merge_after"), duration_within(0, 365 * 86_400_000)] = 600_000
    """Segments archived more lately are left alone."""
    garbage: GarbageConfig = GarbageConfig()
    """Objects that nothing needs any more."""


class ColdClientLimit(Section):
    """Which clients may be sent how much from archives. With both patterns, both must match."""

    client_id: ClientPattern | None = None
    """Of the client's own `client.id`; `*` and `?` as in a topic's pattern."""
    user: ClientPattern | None = None
    """Of the SASL user that the broker has accepted. Who has none is matched by no pattern."""
    cold_read_rate: ByteRate
    """Most archived bytes in a second, before any compression of ours; None (`none`) = no limit for these."""
    shared: bool = False
    """True: all of them together. False: each client id, or each user, or each pair of them, for itself."""

    def matches(self, client_id: str, user: str | None) -> bool:
        if self.client_id is not None and not glob(self.client_id).fullmatch(client_id):
            return False
        return self.user is None or (user is not None and glob(self.user).fullmatch(user) is not None)


class LimitsConfig(Section):
    """What bounds tierproxy whatever its clients do; `workers` share it."""

    frame_bytes: Annotated[SizeBytes, Field(alias="frame"), size_within(1024, 2**31 - 1)] = 100 * 2**20
    """Largest request a client may send (Kafka: socket.request.max.bytes)."""
    connections: Annotated[int, count_within(1, 1_000_000)] = 10_000
    """Of clients; more are refused. Each takes two of the process' open files."""
    unanswered: Annotated[int, count_within(1, 100_000)] = 1_000
    """Requests of one connection that may wait for an answer before it is no longer read."""
    gathered_bytes: Annotated[SizeBytes, Field(alias="gathered"), size_within(2**20, 2**50)] = 256 * 2**20
    """Memory for messages that must be read whole, of all connections together; over it, connections wait."""
    idle_ms: Annotated[DurationMs, Field(alias="idle"), duration_within(1_000, 30 * 86_400_000)] = 660_000
    """A connection on which nothing moves for so long is closed. Brokers do it after 10 minutes themselves."""
    stall_ms: Annotated[DurationMs, Field(alias="stall"), duration_within(100, 3_600_000)] = 30_000
    """A connection that stops in the middle of a message for so long is closed."""
    connect_timeout_ms: Annotated[DurationMs, Field(alias="connect_timeout"), duration_within(1, 600_000)] = 10_000
    """How long opening a connection to a broker may take."""
    handshake_timeout_ms: Annotated[DurationMs, Field(alias="handshake_timeout"), duration_within(100, 600_000)] = (
        10_000
    )
    """How long a client may take for its TLS handshake."""
    cold_bytes: Annotated[SizeBytes, Field(alias="cold_in_flight"), size_within(2**20, 2**50)] = 256 * 2**20
    """Cold bytes that are being read for clients at one time, all together."""
    cold_answers_bytes: Annotated[SizeBytes, Field(alias="cold_answers"), size_within(2**20, 2**50)] = 256 * 2**20
    """Memory for archived records that clients have not taken yet, all together; when it gets less, so do answers."""
    cold_read_rate: ByteRate = None
    """Most archived bytes that clients are sent in a second, all together; None (`none`) = no limit. These rates count
    log bytes and hold on average: what was too much in one answer is waited for before the next."""
    cold_clients: tuple[ColdClientLimit, ...] = ()
    """Limits for some of them. The first entry that matches a client is the one."""


class LogConfig(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    format: Literal["text", "json"] = "text"
    """`json`: an object a line."""


class Config(Section):
    """Everything tierproxy was told. Read it with `load_config`."""

    cluster: ClusterConfig
    """The Kafka cluster behind the proxy."""
    listen: ListenConfig
    """Where clients connect."""
    admin: AdminConfig | None = None
    """The port for operators; None = there is none."""
    archives: dict[str, ArchiveConfig] = Field(default_factory=dict)
    """Where archived topics go, by names of your choice."""
    cache: CacheConfig = CacheConfig()
    """What was read from archives lately."""
    defaults: PolicyDefaults = PolicyDefaults()
    """What policies under topics inherit, each key that they don't write themselves."""
    topics: tuple[TopicPolicy, ...] = ()
    """Policies. The first that matches a topic is the one; what none matches is just proxied."""
    archiver: ArchiverConfig = ArchiverConfig()
    """What copies and trims."""
    limits: LimitsConfig = LimitsConfig()
    """What bounds it all."""
    workers: Workers = 1
    """Processes that serve clients, and one more for the archiver if there are several; `auto`: as many as this machine
    or container gives us cores. `cache` and `limits` are for all of them together."""
    log: LogConfig = LogConfig()
    """What is written to standard error."""
    prices: PricesConfig = PricesConfig()
    """What storing costs, for `tierproxy plan` and the dashboard."""

    @field_validator("topics", mode="after")
    @classmethod
    def _inherit(cls, topics: tuple[TopicPolicy, ...], others: ValidationInfo) -> tuple[TopicPolicy, ...]:
        """Policies are complete from here on; nobody else needs to know of `defaults`."""
        defaults = others.data.get("defaults")
        return topics if defaults is None else tuple(policy.inheriting(defaults) for policy in topics)

    @property
    def archiver_group(self) -> str | None:
        """The group's whole name; None: this archiver works alone."""
        group = self.archiver.group
        return group.replace("{cluster}", self.cluster.name) if group is not None else None

    def cold_rates_shared(self, processes: int) -> "Config":
        """The same, with one process's part of each rate that `processes` keep to together."""

        def part(whole: int | None) -> dict[str, int | None]:
            return {"cold_read_rate": part_of(whole, processes)}

        clients = tuple(each.model_copy(update=part(each.cold_read_rate)) for each in self.limits.cold_clients)
        limits = {**part(self.limits.cold_read_rate), "cold_clients": clients}
        topics = tuple(each.model_copy(update=part(each.cold_read_rate)) for each in self.topics)
        return self.model_copy(update={"limits": self.limits.model_copy(update=limits), "topics": topics})

    def policy_for(self, topic: str, internal: bool) -> TopicPolicy | None:
        """The first policy that matches; `internal` is what the broker's Metadata says of the topic."""
        return next((policy for policy in self.topics if policy.takes(topic, internal)), None)
