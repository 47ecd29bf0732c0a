"""`tierproxy check`: gather facts, judge them, show the report."""

import asyncio
import logging
from typing import Any

from rich.console import Console
from rich.table import Table

from tierproxy.cli.explain import explain_all, explanation_json, look_for_topics, show_explanation
from tierproxy.cli.facts import gather
from tierproxy.cli.judge import Report, judge
from tierproxy.cli.judge_topics import Finding, PolicyUse
from tierproxy.cli.output import print_json, tables, waiting
from tierproxy.clock import SystemClock
from tierproxy.config import Config, Keep
from tierproxy.config.units import format_duration, format_size
from tierproxy.telemetry import setup_logging

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "bold red")}
TOPICS_SHOWN = 5


def run_check(config: Config, as_json: bool) -> bool:
    """Print the report; True if there is no fault in it."""
    setup_logging("error")
    logging.getLogger("tierproxy.upstream").setLevel(logging.CRITICAL)  # the report says it better
    with waiting("asking brokers and archives …"):
        report = judge(config, asyncio.run(gather(config, SystemClock())))
    if as_json:
        print_json(report_json(config, report))
    else:
        _show(config, report, tables())
    return report.ok


def run_explain(config: Config, topics: tuple[str, ...], as_json: bool) -> None:
    """Print which policy each of these has. Raises TierproxyError."""
    setup_logging("error")
    logging.getLogger("tierproxy.upstream").setLevel(logging.CRITICAL)
    with waiting("asking brokers …"):
        view = asyncio.run(look_for_topics(config, SystemClock()))
    found = explain_all(config, topics, view)
    if as_json:
        print_json({"topics": [explanation_json(each) for each in found]})
    else:
        console = tables()
        for number, each in enumerate(found):
            if number:
                console.print()
            show_explanation(each, console)


def report_json(config: Config, report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "cluster": {"name": config.cluster.name, "id": report.cluster_id},
        "findings": [_finding_json(finding) for finding in report.findings],
        "policies": [
            {
                "index": use.index,
                "match": use.policy.match,
                "archive": use.policy.archive,
                "topics": list(use.topics),
                "partitions": use.partitions,
            }
            for use in report.policies
        ],
        "topics_without_policy": report.unmatched,
    }


def _finding_json(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level,
        "area": finding.area,
        "subject": finding.subject,
        "text": finding.text,
    }


def _show(config: Config, report: Report, console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for column in ("level", "area"):
        table.add_column(column, no_wrap=True)
    table.add_column("subject", overflow="fold")
    table.add_column("text", overflow="fold")
    for finding in report.findings:
        mark, style = _MARKS[finding.level]
        table.add_row(mark, finding.area, finding.subject, finding.text, style=style if mark != "ok" else None)
    console.print(table)
    if report.policies and report.cluster_id is not None:
        console.print()
        console.print(_policies(report))
    faults = sum(finding.level == "fault" for finding in report.findings)
    found = sum(finding.level == "warning" for finding in report.findings)
    cluster = f"cluster {config.cluster.name}" + (f" ({report.cluster_id})" if report.cluster_id else "")
    console.print(f"\n{cluster}: {_count(faults, 'fault')}, {_count(found, 'warning')}")


def _policies(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("policy", "match", "archive", "on the brokers", "in the archive"):
        table.add_column(name, no_wrap=True)
    for name in ("topics", "partitions"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for use in report.policies:
        shown = ", ".join(use.topics[:TOPICS_SHOWN]) + (", …" if len(use.topics) > TOPICS_SHOWN else "")
        table.add_row(
            f"topics[{use.index}]",
            use.policy.match,
            use.policy.archive or "none",
            _kept(use),
            _archived(use),
            str(len(use.topics)),
            str(use.partitions),
            shown,
        )
    if report.unmatched:
        table.add_row("(no policy)", "", "none", "everything", "", str(report.unmatched), "", "")
    return table


def _kept(use: PolicyUse) -> str:
    policy = use.policy
    if policy.archive is None:
        return "everything"
    if policy.trim == "never":
        return "as the brokers' retention says"
    return keep_text(policy.keep_on_broker)


def _archived(use: PolicyUse) -> str:
    if use.policy.archive is None:
        return ""
    kept = use.policy.keep_in_archive
    return "forever" if kept == Keep() else keep_text(kept)


def keep_text(keep: Keep) -> str:
    """`7d or 200 GiB`, whichever is reached first."""
    limits = []
    if keep.time_ms is not None:
        limits.append(format_duration(keep.time_ms))
    if keep.bytes is not None:
        limits.append(f"{format_size(keep.bytes)} a partition")
    return " or ".join(limits) or "everything"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
