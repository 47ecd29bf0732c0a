"""Programs (see `programs`) for a machine that is shared: `python -m tests.bench.contending KIND JSON`.

- `read`: reads a topic round and round for some seconds, by hand; its bytes, and how long each of its fetches took;
- `burn`: takes a share of a processor for as long.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from protocol.batches import walk
from tests.bench.programs import work_when_told
from tests.bench.raw import Connection, asked


def read(about: dict[str, Any]) -> dict[str, Any]:
    """`about`: address, topic, ends by partition, where to begin (0 to 1), seconds, partition_bytes."""
    ends = {int(p): end for p, end in about["ends"].items()}
    at = {p: int(end * about["begin"]) for p, end in ends.items()}
    host, port = about["address"]
    got, waits = 0, []
    began = now = time.perf_counter()
    with Connection((host, port)) as connection:
        while now - began < about["seconds"]:
            connection.send_fetch([asked(about["topic"], p, at[p], about["partition_bytes"]) for p in ends])
            answer = connection.receive_fetched()
            then, now = now, time.perf_counter()
            waits.append(now - then)
            for part in answer.partitions:
                for header, batch in walk(part.records or memoryview(b"")):
                    got += len(batch)
                    at[part.index] = header.next_offset if header.next_offset < ends[part.index] else 0
    return {"bytes": got, "seconds": now - began, "waits": waits}


def burn(about: dict[str, Any]) -> dict[str, Any]:
    """`about`: share (of a processor), seconds."""
    began, used = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - began) < about["seconds"]:
        if time.process_time() - used < passed * about["share"]:
            sum(range(20_000))
        else:
            time.sleep(0.001)  # what is left of the processor is others'
    return {"used": time.process_time() - used}


KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"read": read, "burn": burn}


def main(kind: str, about: str) -> None:
    work_when_told(lambda: KINDS[kind](json.loads(about)))


if __name__ == "__main__":
    main(*sys.argv[1:])
