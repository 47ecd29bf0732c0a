"""How plans look: what is unknown is a question mark, and every number says what it rests on."""

import io
import json

from rich.console import Console

from tests.unit.tierproxy.cli.plan.making import KIB, NOW, T0, config, facts, log
from tierproxy.cli.plan.facts import Facts, Sample
from tierproxy.cli.plan.judge import judge
from tierproxy.cli.plan.shelve import LogFacts, Shelved
from tierproxy.cli.plan.show import TOPICS_SHOWN, plan_json, show_plan
from tierproxy.cluster_view import TopicPartition
from tierproxy.config import Config

U0 = TopicPartition("u", 0)
CONFIG = config("match: '*', archive: a, keep_on_broker: {bytes: 0B}", "prices: {currency: EUR, source: a guess}")
LOGS = {T0: log(0, 1000), U0: log(5, 10)}


def shown(found: Facts, configured: Config = CONFIG) -> str:
    out = io.StringIO()
    console = Console(file=out, width=220, highlight=False, markup=False)
    show_plan(configured, judge(configured, found, 3), "id", NOW, True, console)
    return out.getvalue()


def row(text: str, name: str) -> str:
    """The first row that begins so, with single spaces."""
    return " ".join(next(line for line in text.splitlines() if line.strip().startswith(name)).split())


def test_all_is_known() -> None:
    text = shown(facts(CONFIG, LOGS, sizes=dict.fromkeys(LOGS, 1000 * KIB), samples={"t": Sample(1000, 500, 10)}))
    assert "?" not in text
    assert text.startswith("plan for cluster prod (id), 2027-01-15T08:00:00")
    assert "nothing was changed\ntopics[0] *: brokers keep 0 B a partition, archive a keeps forever\n" in text
    assert row(text, "t ") == "t 1 2.93 MiB 1000 KiB 1 500 KiB 2.0 sample 2.93 MiB"
    assert row(text, "t-0 ") == "t-0 0 1000 0 0 1000 1000 KiB 2.93 MiB"
    assert "2.0 other topics" in row(text, "u ")
    assert "bytes for an offset: measured on the brokers (2 partitions)" in text
    assert "compression: by a sample (1 topic), by samples of other topics of the policy (1 topic)" in text
    assert "growth: no record of the last 24h" in text
    assert "prices: assumed, a guess; without traffic and what readers ask for" in text
    assert "costs as they will be in 3 months, in EUR" in text
    assert "EUR" in text
    assert "USD" not in text


def test_what_is_unknown_is_a_question_mark() -> None:
    found = facts(CONFIG, {**LOGS, U0: LogFacts(29)}, samples={"t": "can't be fetched: TOPIC_AUTHORIZATION_FAILED"})
    text = shown(found)
    assert row(text, "t ") == "t 1 ? ? ? ? ?"
    assert "bytes for an offset: unknown (2 partitions)" in text
    assert "MISSING: u-0: the leader does not tell of its log: TOPIC_AUTHORIZATION_FAILED" in text
    assert "note: no sample of t: can't be fetched: TOPIC_AUTHORIZATION_FAILED" in text


def test_what_is_excluded_says_why() -> None:
    found = facts(CONFIG, LOGS, sizes=dict.fromkeys(LOGS, KIB))
    found.unfit["u"] = "it is compacted"
    text = shown(found)
    assert "not archived: u: it is compacted" in text
    assert "u-0" not in text


def test_what_would_be_removed_for_ever_is_said() -> None:
    shelf = Shelved("a", 0, 1000, 3, 3 * KIB, KIB, 3.0, 0, 0, 0, 0, NOW, None, 500, 2, 2 * KIB, KIB)
    text = shown(facts(CONFIG, {T0: log(0, 1000)}, sizes={T0: KIB}, shelves={T0: shelf}))
    assert "2 objects with 2 KiB of log, 1 KiB stored, are older than keep_in_archive, and would be removed" in text
    assert row(text, "t ").endswith("3.0 archive 0 B 3 KiB 2 KiB")
    assert row(text, "t-0 ").endswith(" 500")


def test_nothing_to_plan() -> None:
    assert "no topic of this cluster is to be archived" in shown(facts(CONFIG, {}))


def test_many_topics_are_not_all_shown() -> None:
    logs = {TopicPartition(f"n{number}", 0): log(0, number) for number in range(TOPICS_SHOWN + 7)}
    text = shown(facts(CONFIG, logs, sizes={tp: each.end * KIB for tp, each in logs.items()}))
    assert row(text, "7 more").startswith("7 more 7 ")
    assert row(text, "topics[0] *  ").startswith(f"topics[0] * {TOPICS_SHOWN + 7} ")


def test_json_for_scripts() -> None:
    found = facts(CONFIG, LOGS, sizes=dict.fromkeys(LOGS, 1000 * KIB), samples={"t": Sample(1000, 500, 10)})
    plan = judge(CONFIG, found, 12)
    whole = json.loads(json.dumps(plan_json(CONFIG, plan, "id", NOW, True)))
    assert (whole["ok"], whole["cluster"], whole["months"]) == (True, {"name": "prod", "id": "id"}, 12)
    assert whole["prices"] == {"currency": "EUR", "source": "a guess"}
    (policy,) = whole["policies"]
    assert (policy["index"], policy["match"], policy["archive"]) == (0, "*", "a")
    topic = policy["topics"][0]
    assert topic["compression"] == {"ratio": 2.0, "source": "sample"}
    assert topic["total"]["freed_bytes"] == 3000 * KIB
    part = topic["partitions"][0]
    assert (part["log_start"], part["trim_now"], part["trim_to"], part["exact"]) == (0, 0, 1000, True)
    assert part["offset_bytes"] == {"value": 1024.0, "source": "measured"}
    assert (part["problem"], part["expire_to"]) == (None, None)
    costs = whole["total"]["cost_later"]
    assert costs["total"] == round(costs["brokers"] + costs["storage"] + costs["requests"], 6)
    short = plan_json(CONFIG, plan, "id", NOW, False)
    assert "partitions" not in short["policies"][0]["topics"][0]
