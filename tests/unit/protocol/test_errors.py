from kafka import errors as kafka_python

from protocol.errors import ErrorCode, MalformedError, TruncatedError


def test_every_code_up_to_the_newest_has_a_name() -> None:
    assert sorted(ErrorCode) == list(range(-1, 134))


def test_names_are_kafkas() -> None:
    # From Kafka's protocol guide: the codes that decisions are made by here.
    expected = {
        0: "NONE",
        1: "OFFSET_OUT_OF_RANGE",
        3: "UNKNOWN_TOPIC_OR_PARTITION",
        6: "NOT_LEADER_OR_FOLLOWER",
        7: "REQUEST_TIMED_OUT",
        15: "COORDINATOR_NOT_AVAILABLE",
        29: "TOPIC_AUTHORIZATION_FAILED",
        35: "UNSUPPORTED_VERSION",
        42: "INVALID_REQUEST",
        56: "KAFKA_STORAGE_ERROR",
        70: "FETCH_SESSION_ID_NOT_FOUND",
        71: "INVALID_FETCH_SESSION_EPOCH",
        74: "FENCED_LEADER_EPOCH",
        75: "UNKNOWN_LEADER_EPOCH",
        76: "UNSUPPORTED_COMPRESSION_TYPE",
        78: "OFFSET_NOT_AVAILABLE",
        100: "UNKNOWN_TOPIC_ID",
        103: "INCONSISTENT_TOPIC_ID",
    }
    assert {code: ErrorCode(code).name for code in expected} == expected


def test_kafka_python_knows_no_code_that_is_missing_here() -> None:
    theirs = {getattr(kind, "errno", None) for kind in vars(kafka_python).values() if isinstance(kind, type)}
    assert {code for code in theirs if isinstance(code, int)} <= set(ErrorCode)


def test_truncated_is_a_kind_of_malformed() -> None:
    assert issubclass(TruncatedError, MalformedError)
    assert issubclass(MalformedError, ValueError)
