"""What `tierproxy status` shows of pictures, and how it asks the process that runs. With Kafka: test_dashboard."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.unit.tierproxy.insight.pictures import CONFIG, NOW, archived, facts, gap, part, topic
from tests.unit.tierproxy.insight.test_site import serving
from tests.unit.tierproxy.test_admin import free_port
from tierproxy.cli import main
from tierproxy.cli.status import ask_process
from tierproxy.cli.status_view import MOST_ROWS, Process, lane_text, status_view
from tierproxy.config import AdminConfig
from tierproxy.insight.facts import GroupFacts, Member
from tierproxy.insight.overview import Overview, overview
from tierproxy.insight.shapes import lanes
from tierproxy.insight.told import Told
from tierproxy.recent import Trouble


def shown(seen: Overview, process: Process | None = None, width: int = 140) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(status_view(CONFIG, seen, process or Process(None), width))
    return capture.get()


def seen(*topics: Any, **more: Any) -> Overview:
    return overview(facts(*topics, **more), NOW, {})


FINE = topic(part(80, 120, archived(0, 100)), name="payments")
LOST = topic(part(200, 220, archived(0, 100, gap(10, 30)), number=7), name="orders")


def test_both_lanes_are_one_line() -> None:
    (found,) = seen(topic(part(75, 100, archived(0, 100, gap(25, 50))))).topics
    assert lane_text(lanes(found.partitions[0].spans), 8).plain == "▀▀xx▀▀██"
    (found,) = seen(topic(part(50, 100, archived(0, 75)))).topics
    assert lane_text(lanes(found.partitions[0].spans), 8).plain == "▀▀▀▀██▄▄"
    assert lane_text(lanes([]), 8).plain == " " * 8


def test_what_needs_somebody_comes_first() -> None:
    text = shown(seen(FINE, LOST))
    lines = text.splitlines()
    assert lines[0] == "needs you: 1 partition of 1 topic needs you  (cluster prod)"
    assert "2 topics, 2 partitions: 195 KiB archived as 48.8 KiB" in lines[1]
    rows = [line.split() for line in lines if line.startswith(("fine ", "needs you "))]
    assert rows[0][:3] == ["needs", "you", "orders"]
    assert rows[1][1:3] == ["payments", "0"]
    assert "needs you: orders-7: offsets 100 to 199 are neither archived nor on the broker" in text
    assert "archivers: 1 member of archivers Stable\n  10.0.0.1 tierproxy-archiver: 0 partitions of 0 topics" in text


def test_a_narrow_terminal_has_no_picture() -> None:
    assert "archive / broker" in shown(seen(FINE), width=120)
    narrow = shown(seen(FINE), width=80)
    assert "archive / broker" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_very_many_partitions_are_cut() -> None:
    about = seen(topic(*(part(0, 9, archived(0, 9), number=n) for n in range(MOST_ROWS + 5)), name="many"))
    text = shown(about)
    assert "… and 5 partitions more: name topics, or use --json" in text
    assert text.count("many") == MOST_ROWS


def test_problems_and_what_cant_be_seen_are_told() -> None:
    about = seen(FINE, problems=("no broker answers", "archive main can't be read"))
    assert "needs you: no broker answers" in shown(about)
    assert "archive main can't be read" in shown(about)
    unseen = overview(facts(FINE, group=GroupFacts("g", problem="not authorized")), NOW, {})
    assert "archivers: the group g can't be seen: not authorized" in shown(unseen)


def test_what_a_process_tells_is_shown() -> None:
    troubles = [Trouble("scout", 30, "is over", NOW - 9000, NOW - 5000), Trouble("archiver", 40, "goes on", NOW - 8000)]
    told = Told("archiver", {}, {}, troubles)
    said = {"connections": 3, "speeds": {"tierproxy_cold_fetches_total": 2.5}, "workers": [told.to_json()]}
    text = shown(seen(FINE), Process(said))
    assert "passing: 2.5 fetches of archived records a second, 0 B/s of archived bytes read" in text
    assert "3 client connections" in text
    assert text.index("archiver, open for 8s: goes on") < text.index("archiver scout, over for 5s: is over")
    assert "why not" in shown(seen(FINE), Process(None, "why not"))


@pytest.mark.parametrize("config", [{}, {"token": "t"}, {"username": "u", "password": "p"}], ids=str)
async def test_the_process_with_this_configuration_is_asked(config: dict[str, str]) -> None:
    about = AdminConfig.model_validate({"port": free_port(), **config})
    async with serving(about):
        found = await ask_process(CONFIG.model_copy(update={"admin": about}))
        assert found.said is not None
        assert [each.who for each in found.told] == [""]
        if config:
            other = AdminConfig.model_validate({"port": about.port, "token": "another"})
            refused = await ask_process(CONFIG.model_copy(update={"admin": other}))
            assert "answers 401: is this configuration that of the process?" in refused.why
    gone = await ask_process(CONFIG.model_copy(update={"admin": about}))
    assert (gone.said, gone.told) == (None, [])
    assert "no tierproxy answers at" in gone.why


async def test_without_a_dashboard_nobody_is_asked() -> None:
    for admin in (None, AdminConfig(dashboard=False)):
        assert await ask_process(CONFIG.model_copy(update={"admin": admin})) == Process(None)


def test_members_say_what_they_have() -> None:
    members = (Member("c", "m", "10.0.0.1", {"a": (0, 1), "b": (2,)}), Member("c", "n", "10.0.0.2", {}))
    text = shown(seen(FINE, members=members))
    assert "10.0.0.1 c: 3 partitions of 2 topics" in text
    assert "10.0.0.2 c: 0 partitions of 0 topics" in text


def test_watching_is_for_people(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("cluster: {name: a, bootstrap: ['127.0.0.1:1']}\nlisten: {advertised_host: localhost}\n")
    result = CliRunner().invoke(main, ["status", "--config", str(config), "--watch", "--json"])
    assert result.exit_code == 2
    assert "--watch is for people" in result.output
    result = CliRunner().invoke(main, ["status", "--config", str(config)])
    assert result.exit_code == 1
    assert "the brokers can't be asked" in result.output
