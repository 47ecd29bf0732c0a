"""Real parts for tests, demonstration and benchmark: Kafka, tierproxy, an S3 server, stock clients.

Map:

- `processes` starts programs in their own process group and sees to it that none outlives us;
- `jars` brings Apache Kafka's jars; `kafka` runs brokers and Kafka's own tools from them;
- `proxy` runs `tierproxy serve`; `s3` runs an S3 server;
- `chart` renders the Helm chart, `kubernetes` says whether Kubernetes takes it, `image` carries out the Containerfile,
  and `pods` runs the one's output with the other's;
- `records` is what a record looks like to a client, `clients` are the four stock consumers that read them.

Everything that is written goes below the project's own folder (`.cache`, `.demo`, `.bench`) or a directory
that the caller names.
"""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / ".cache"
