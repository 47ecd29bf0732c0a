"""How a process comes to its end, and one that serves nobody. (With workers: test_workers.py.)"""

import socket
from pathlib import Path

from protocol.apis import ApiKey
from protocol.headers import request_header
from tests.clients.raw import Raw
from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.processes import wait_for
from tests.kit.producing import produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import drafts, ends


def test_who_is_told_to_stop_says_so_and_serves_on_until_told_twice(
    stage: Stage, proxied: Proxy, tmp_path: Path
) -> None:
    proxy = Proxy(tmp_path, stage.broker, [])
    proxy.write_config({**proxy.config, "listen": {**proxy.config["listen"], "drain_delay": "10m"}})
    with proxy:
        assert proxy.process is not None
        proxy.process.terminate()
        wait_for(lambda: proxy.get("/ready")[0] == 503, seconds=60, what="/ready that says no")
        assert "stopping, 600 s after being told to" in proxy.get("/ready")[1]
        assert proxy.get("/live")[0] == 200
        with Raw(proxy.bootstrap) as newcomer:
            answer = newcomer.ask(request_header(ApiKey.API_VERSIONS, 0, 7, "newcomer"))
            assert answer[:4] == (7).to_bytes(4, "big")
        assert proxy.stop() == 0


def test_a_process_that_only_archives_opens_no_port_for_clients(stage: Stage, proxied: Proxy, tmp_path: Path) -> None:
    topic = stage.topic("stop.archived")
    policy = {"match": topic, "archive": "local", "segment": {"age": "200ms"}, "keep_on_broker": {"bytes": "0B"}}
    proxy = Proxy(tmp_path, stage.broker, [policy], cluster="stop")
    proxy.write_config({**proxy.config, "listen": {"enabled": False, "port": proxy.port}, "workers": 2})
    with proxy:
        log = produce(stage.broker, topic, drafts(50, partition=0, seed=90))
        admin.wait_trimmed(stage.broker, topic, {p: last + 1 for p, last in ends(log).items()})
        for port in (proxy.port, proxy.port + 2):
            with socket.socket() as client:
                assert client.connect_ex((HOST, port)) != 0
        assert proxy.stop() == 0
