"""A broker that does on demand what a real one can't be made to do: answer late, oddly, in pieces, or not at all.

It is a real program: asyncio servers on real sockets, one for each node of a `FakeCluster`, speaking Kafka's protocol
by kafka-python's message classes (the product's own encoders would hide their own mistakes). For what it fakes it
passes the same tests as Apache Kafka: tests/fakes/test_contract_*.py run each of their cases against both.

    log.py        one partition's log: batches, log start, epochs, transactions, segments; pure
    cluster.py    nodes, topics, leaders, and what an operator or fate does to them
    node.py       one broker's port: frames in, one request at a time, answers out in order
    steering.py   how a test takes a hand: observe, hold, change, cut or refuse one answer
    messages.py   requests and answers by kafka-python
    api_NN_*.py   one API each; its head says which versions, what it does, and what it does NOT do

Not done at all: security, groups, transactions' own APIs (tests append markers themselves), replication (followers see
the leader's log at once), quotas by rate (a test throttles one answer), fetch sessions (it answers as a broker whose
session slots are taken: session id 0). A key that is not here is not offered, and a request of it closes the
connection, so that nothing is passed over in silence.
"""

from tests.fakes.broker.cluster import FakeCluster, FakeTopic, Partition
from tests.fakes.broker.log import PartitionLog
from tests.fakes.broker.node import Node
from tests.fakes.broker.steering import HangUp, Request, Rule

__all__ = ["FakeCluster", "FakeTopic", "HangUp", "Node", "Partition", "PartitionLog", "Request", "Rule"]
