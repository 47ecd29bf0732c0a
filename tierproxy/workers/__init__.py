"""Several processes that serve the same ports, and the archiver beside them: `workers` in the configuration.

The parent, the *supervisor* (supervisor.py), serves no clients. It starts N *gateway* processes and, if anything is
archived, an *archiver*; starts anew what dies (how soon: roster.py); owns the listening sockets, and hands what it
accepts to the gateway that has the fewest connections (channel.py); answers at the admin port for all (metrics.py). A
child (__main__.py, worker.py) is an `App` with one role and its share of the budgets (shares.py). When the supervisor
dies, of whatever cause, its end of each channel closes, and the children end.

Nothing is imported here: the environment decides what kind of metrics the children have, before they import any.
"""
