"""README's pieces for clients as whole programs: each reads `NUMBER` records and prints their values, a line each.

A piece makes the client; what is added here is the loop that README leaves to the reader.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.clients.golang import SOURCES
from tests.kit import golang

_LOOPS: Mapping[str, str] = {
    "confluent_kafka": """
left = NUMBER
while left:
    record = consumer.poll(1)
    if record is not None:
        assert record.error() is None, record.error()
        print(record.value().decode())
        left -= 1
consumer.close()
""",
    "kafka": """
for _ in range(NUMBER):
    print(next(consumer).value.decode())
consumer.close()
""",
}
"""By the library that the piece imports."""
_GO: Mapping[str, str] = {
    "kgo": """
package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	PIECE
	if err != nil {
		panic(err)
	}
	for left := NUMBER; left > 0; {
		fetches := client.PollFetches(context.Background())
		if err := fetches.Err(); err != nil {
			panic(err)
		}
		fetches.EachRecord(func(record *kgo.Record) { fmt.Println(string(record.Value)); left-- })
	}
	client.Close()
}
""",
    "sarama": """
package main

import (
	"context"
	"fmt"

	"github.com/IBM/sarama"
)

var values = make(chan string, 1000)

type reader struct{}

func (reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (reader) ConsumeClaim(_ sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		values <- string(message.Value)
	}
	return nil
}

func main() {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	PIECE
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			if err := group.Consume(context.Background(), []string{"tierproxy-trial"}, reader{}); err != nil {
				panic(err)
			}
		}
	}()
	for left := NUMBER; left > 0; left-- {
		fmt.Println(<-values)
	}
}
""",
}
"""By the package that the piece names."""


def python(piece: str, number: int) -> str:
    """Raises KeyError for a library that nobody can make a loop for."""
    library = re.findall(r"^from (\w+) import", piece, re.MULTILINE)[0]
    return piece + _LOOPS[library].replace("NUMBER", str(number))


def go(piece: str, number: int, directory: Path) -> Path:
    """The program, built. Raises golang.NoGo."""
    package = next(name for name in _GO if f"{name}." in piece)
    folder = directory / package
    folder.mkdir()
    for file in ("go.mod", "go.sum"):
        shutil.copy(SOURCES / file, folder)
    (folder / "main.go").write_text(_GO[package].replace("PIECE", piece).replace("NUMBER", str(number)))
    return golang.build(folder, ".", f"walk-{package}")


def properties(piece: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in piece.splitlines())
