"""The archiver, played by seed in virtual time: real code between simulated brokers and a simulated store.

    loop      virtual time; processes that can be frozen and killed within one event loop
    disk      the store: slow, refusing, losing answers, writing late, lying
    brokers   the cluster: logs, leaders, elections, retention, producers, transactions
    asking    one process's way to the brokers, in place of `tierproxy.upstream.Cluster`
    actors    archivers (all of `tierproxy.tiering`) and readers (all of `tierproxy.cold`'s reading)
    truth     what must hold, checked at every change of the store and of a log
    play      one seed: trouble for a while, then peace, and what must have become of it by then
    mutants   wrong versions of tierproxy that must be found out

Another actor is added in `play` (what it may do with a manifest: `truth._follows`).
"""
