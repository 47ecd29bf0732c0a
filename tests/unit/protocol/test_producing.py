"""Produce, InitProducerId and CreateTopics by hand, against kafka-python's message classes."""

from typing import Any

import pytest
from kafka.protocol import admin, producer

from protocol import producing
from protocol.errors import MalformedError
from protocol.producing import Produced


def answer(message: Any) -> bytes:
    message.with_header(correlation_id=9)
    return bytes(message.encode(header=True))


@pytest.mark.parametrize("version", range(producing.PRODUCE_VERSIONS[0], producing.PRODUCE_VERSIONS[1] + 1))
def test_produce(version: int) -> None:
    body = b"".join(producing.produce_request("flights", 3, b"a batch", 5000))
    request: Any = producer.ProduceRequest.decode(body, version=version)
    assert (request.transactional_id, request.acks, request.timeout_ms) == (None, -1, 5000)
    ((topic,),) = [request.topic_data]
    assert (topic.name, topic.partition_data[0].index, bytes(topic.partition_data[0].records)) == (
        "flights",
        3,
        b"a batch",
    )

    kafka_topic = producer.ProduceResponse.TopicProduceResponse
    kafka_partition = kafka_topic.PartitionProduceResponse
    kafka_error = kafka_partition.BatchIndexAndErrorMessage
    errors = [kafka_error(version=8, batch_index=2, batch_index_error_message="no")]
    words: dict[str, Any] = {"record_errors": errors, "error_message": "bad record"} if version >= 8 else {}
    partition = kafka_partition(version=version, index=3, error_code=87, base_offset=-1, **words)
    topics = [kafka_topic(version=version, name="flights", partition_responses=[partition])]
    payload = answer(producer.ProduceResponse(version=version, responses=topics, throttle_time_ms=1))
    said = "no; bad record" if version >= 8 else ""
    assert producing.read_produce_response(payload, version) == Produced(87, -1, said)
    with pytest.raises(MalformedError):
        producing.read_produce_response(payload + b"\x00", version)
    nothing = answer(producer.ProduceResponse(version=version, responses=[], throttle_time_ms=1))
    with pytest.raises(MalformedError, match="more or less"):
        producing.read_produce_response(nothing, version)


@pytest.mark.parametrize("version", [0, 1])
def test_a_producers_id(version: int) -> None:
    request: Any = producer.InitProducerIdRequest.decode(producing.init_producer_id_request(), version=version)
    assert request.transactional_id is None
    response = producer.InitProducerIdResponse(
        version=version, throttle_time_ms=0, error_code=0, producer_id=4001, producer_epoch=2
    )
    assert producing.read_init_producer_id_response(answer(response), version) == (0, 4001, 2)


def test_a_new_topic() -> None:
    version = 4
    body = producing.create_topic_request("flights", 5, -1, {"retention.ms": "-1"}, 5000)
    request: Any = admin.CreateTopicsRequest.decode(body, version=version)
    (topic,) = request.topics
    assert (topic.name, topic.num_partitions, topic.replication_factor) == ("flights", 5, -1)
    assert [(config.name, config.value) for config in topic.configs] == [("retention.ms", "-1")]
    assert (topic.assignments, request.timeout_ms, request.validate_only) == ([], 5000, False)

    result = admin.CreateTopicsResponse.CreatableTopicResult(
        version=version, name="flights", error_code=37, error_message="too many"
    )
    response = admin.CreateTopicsResponse(version=version, throttle_time_ms=0, topics=[result])
    assert producing.read_create_topic_response(answer(response), version) == (37, "too many")
