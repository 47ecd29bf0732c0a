"""Committed and aborted transactions out of the archive, as `read_committed` and `read_uncommitted` see them."""

from dataclasses import dataclass

import pytest

from tests.integration.conftest import Stage
from tests.kit.clients import READERS
from tests.kit.producing import Recorder, merged
from tests.kit.records import Draft, Log, assert_same, drafts


@dataclass
class Story:
    topic: str
    committed: Log
    everything: Log


def _cut(partition: int, sizes: list[int]) -> list[list[Draft]]:
    """The drafts of one partition, cut into pieces of these sizes."""
    source = drafts(sum(sizes), partition=partition, seed=2)
    return [[next(source) for _ in range(size)] for size in sizes]


@pytest.fixture(scope="module")
def story(stage: Stage) -> Story:
    """Two transactional producers and a plain one take turns, so that transactions interleave and overlap.

    The long transaction stays open while a hundred others end: those ended ones are decided, but may not be
    archived before it is, and its data and its marker lie in different segments (64 KiB each here).
    """
    topic = stage.topic("seam.transactions", partitions=2)
    short = Recorder(stage.broker, topic, transactional=True)
    long = Recorder(stage.broker, topic, transactional=True)
    plain = Recorder(stage.broker, topic)
    for abort_long in (True, False, True):
        pieces = [_cut(0, [60] * 13), _cut(1, [25] * 13)]
        turns = iter([a + b for a, b in zip(*pieces, strict=True)])
        long.begin()
        long.send(next(turns))
        long.flush()
        for i, part in enumerate(turns):
            if i % 4 == 3:
                plain.send(part)
                plain.flush()
                continue
            short.begin()
            short.send(part)
            if i % 3 == 0:
                short.abort()
            else:
                short.commit()
        if abort_long:
            long.abort()
        else:
            long.send(drafts(40, partition=0, seed=3))
            long.commit()
    # Something plain behind the last marker: readers of either isolation then end at a record.
    plain.send(drafts(20, partition=0, seed=4))
    plain.send(drafts(20, partition=1, seed=4))
    plain.flush()
    committed = merged(short.log, long.log, plain.log)
    everything = merged(short.everything, long.everything, plain.everything)
    assert sum(map(len, everything.values())) > sum(map(len, committed.values()))
    stage.wait_trimmed(topic, everything)
    return Story(topic, committed, everything)


@pytest.mark.parametrize("client", READERS)
def test_read_committed(stage: Stage, story: Story, client: str) -> None:
    assert_same(story.committed, READERS[client](stage.gateway, story.topic, story.committed, committed=True))


@pytest.mark.parametrize("client", READERS)
def test_read_uncommitted(stage: Stage, story: Story, client: str) -> None:
    assert_same(story.everything, READERS[client](stage.gateway, story.topic, story.everything))
