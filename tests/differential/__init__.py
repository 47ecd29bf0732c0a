"""The differential test: one log twice, asked twice, one answer.

Every *subject* is a pair of topics which hold the same batches: `ref-…` is never trimmed and is asked at the broker,
`arc-…` is archived, trimmed and asked through tierproxy. Seeded random requests go to both; `ALLOWED.md` lists the only
ways in which the two answers may differ.

Map, in the order of a run:

- `writing` is a raw producer that gives each batch to both topics, in one request and in one transaction;
- `subjects` says what is written to each pair; `golden` is what the broker then had, before anything was trimmed;
- `scene` puts Kafka, two proxies and the subjects on the stage;
- `asks` are the requests, `generator` makes them from a seed, `wire` sends them and takes the answers apart
  (kafka-python's codec, which shares nothing with `protocol/`);
- `fetches` and `offsets` compare answers, `deliver` says which records a client makes of one;
- `plays` are requests that hang together: single ones, pipelines, sessions, long polls, changes;
- `runner` runs them and says how to repeat what failed; `__main__` is `make differential`.
"""
