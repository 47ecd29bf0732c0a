"""The demonstration's last words: what happened, in figures, and how to go on from here."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.demo.story import HOME, LIVE_CLIENTS, PARTITIONS, Facts, short, size


def show(console: Console, facts: Facts) -> None:
    table = Table(title="What happened", title_justify="left", show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    total = facts.bulk + facts.live
    table.add_row("produced", f"{total:,} {escape(facts.title)}, {size(facts.plain_bytes)}, {PARTITIONS} partitions")
    table.add_row(
        "the broker itself",
        f"earliest offsets {_list(facts.earliest_before)} → {_list(facts.earliest_after)}, "
        f"disk {size(facts.disk_before)} → {size(facts.disk_after)}",
    )
    table.add_row(
        "the archive",
        f"{size(facts.log_archived)} of Kafka log in {facts.objects} segments, {size(facts.stored)}: "
        f"[bold]{facts.log_archived / max(1, facts.stored):.1f} times smaller[/]",
    )
    for client, digests in facts.read.items():
        same = digests == facts.sent
        verdict = "[green]digests match[/]" if same else "[bold red]DIGESTS DIFFER[/]"
        read, seconds = facts.records_read[client], facts.seconds[client]
        live = f", {facts.live:,} written meanwhile" if client in LIVE_CLIENTS else ""
        where = f"{facts.bulk:,} no longer on the broker{live}"
        table.add_row(f"read by {client}", f"{read:,} from offset 0 ({where}) in {seconds:.1f} s: {verdict}")
    segment = facts.segment
    if segment is not None:
        valid = "every batch valid" if segment.all_valid else "[bold red]INVALID BATCHES[/]"
        table.add_row(
            "one segment",
            f"{segment.command}, then kafka-dump-log: offsets {segment.first_offset:,} to "
            f"{segment.last_offset:,}, {segment.batches:,} batches, {segment.records:,} records, {valid}",
        )
    console.print()
    console.print(table)
    console.print("SHA-256 per partition over offset, timestamp, key, value and headers:")
    for partition, digest in facts.sent.items():
        reads = ["same" if d.get(partition) == digest else f"{d.get(partition)}" for d in facts.read.values()]
        named = ", ".join(f"{client} {read}" for client, read in zip(facts.read, reads, strict=True))
        console.print(f"  {partition}: sent {digest[:16]}…  {named}", highlight=False)
    console.print()
    if facts.ok:
        console.print("[bold green]Everything that was sent was read back, byte for byte.[/]")
    else:
        console.print("[bold red]What was read is not what was sent.[/]")


def show_how_to_go_on(console: Console, facts: Facts, *, stays: bool) -> None:
    if stays:
        console.print(f"\nIt stays up until Ctrl-C. Point any consumer at [bold]{facts.gateway}[/]:")
    else:
        console.print("\nTo try it with your own consumer: [bold]make demo KEEP=1[/] keeps it running, then")
    address = facts.gateway if stays else "the address it prints"
    console.print(f"  bootstrap.servers = {address}", highlight=False)
    console.print(f"  topic             = {facts.topic}", highlight=False)
    console.print("  auto.offset.reset = earliest", highlight=False)
    if stays:
        console.print(
            f"  for example: .venv/bin/python -m kafka.consumer -b {facts.gateway} -t {facts.topic} "
            "-g mine -C auto_offset_reset=earliest",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"Archive, configuration and logs are in {short(HOME)}/ until the next run.", highlight=False)


def _list(offsets: dict[int, int]) -> str:
    return " ".join(f"{offset:,}" for _, offset in sorted(offsets.items()))
