"""The client matrix: every client library we test with, behind one interface.

Map:

- `matrix` names the clients, what each can do and what it puts on the wire; `compatibility` makes docs/compatibility.md
  of it;
- `client` is the interface, `libraries` the three Python libraries behind it;
- `worker` runs a client in another language as a program of its own, told by JSON lines what to do; `java`, `golang`
  and `node` bring and build those (`java/`, `go/`, `node/` hold their sources);
- `tools` names Kafka's own command-line tools, which run in the Java client's program;
- `tap` records what clients and the proxy say to each other, `wire` reads such recordings, `raw` asks single requests;
- `hidden` is a cluster that nobody but tierproxy can reach, `work` what goes on there by itself.

The tests with them are in `tests/integration/clients`.
"""
