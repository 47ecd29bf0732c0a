"""A newcomer's walk: README's quick start, command by command, from an empty directory to records that are read back.

- `steps` finds the walk in README: what to write, what to run, what to wait for;
- `places` are the addresses that stand for the newcomer's own (the declared substitutions), and what they are here;
- `walker` does the steps, as a shell would;
- `snippets` makes programs of README's pieces for clients.

`make walk` does all of it with a real Kafka, S3 server and `make setup`; a test takes the environment that is there.
"""
