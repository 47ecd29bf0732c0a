"""`tierproxy archive repair`, and what `verify` says before and after, on archives in a directory."""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, TIME, Archive, batch
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, Quarantine, SegmentEntry
from tierproxy.archive.moving import Move
from tierproxy.archive.names import manifest_key
from tierproxy.archive.pages import Paging
from tierproxy.archive.rewound import rewound
from tierproxy.archive.store_file import FileStore
from tierproxy.cli import main
from tierproxy.cli.repair import Repairer
from tierproxy.errors import TierproxyError

SMALL = Paging(root_most=2, root_keep=1, page_most=3)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Offsets 0-5 in two segments, 6-9 lost, 10-11 in a third."""
    archive = Archive(tmp_path)
    archive.add(batch(0, [b"a", b"b"]), batch(2, [b"c"]))
    archive.add(batch(3, [b"d", None, b"f"], epoch=2, codec=1))
    archive.gap(6, 10).add(batch(10, [b"g", b"h\xff\n"], epoch=2))
    return claimed(archive.save())


def claimed(archive: Archive) -> Archive:
    archive.do(lambda library: library.claim(CLUSTER_ID))
    return archive


@pytest.fixture
def paged(tmp_path: Path) -> Archive:
    """Offsets 0-89 in nine segments: two pages of three, one of two, one in the root."""
    archive = Archive(tmp_path)
    for base in range(0, 90, 10):
        archive.add(batch(base, [b"v%d" % base] * 10))
        archive.save(paging=SMALL)
    assert [page.sums.segments for page in archive.manifest.pages] == [3, 3, 2]
    return claimed(archive)


def run(archive: Archive, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["archive", *arguments, "--config", str(archive.config)])


def run_json(archive: Archive, *arguments: str) -> Any:
    return json.loads(run(archive, *arguments, "--json").stdout)


def loaded(archive: Archive) -> Manifest:
    async def load(library: Library) -> Manifest:
        found = await library.load(archive.pid)
        assert found is not None
        return found.manifest

    return archive.do(load)


def listed(archive: Archive, manifest: Manifest) -> list[SegmentEntry]:
    async def walk(library: Library) -> list[SegmentEntry]:
        return [entry async for entry in library.segments(manifest)]

    return archive.do(walk)


def timeless(entries: Iterable[SegmentEntry]) -> list[SegmentEntry]:
    """When they were archived is not in the segments themselves."""
    return [replace(each, created_ms=0) for each in entries]


def values(archive: Archive) -> list[str]:
    return [line.split("\t")[3] for line in run(archive, "cat", "flights").stdout.splitlines()]


def damage(file: Path) -> None:
    """A bit of its first chunk, if it is a segment."""
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(bytes(data))


def forget(archive: Archive) -> None:
    (archive.folder / "manifest.json").unlink()


# ---- verify --------------------------------------------------------------------------------------------------


def test_verify_lists_what_no_manifest_names(archive: Archive) -> None:
    (archive.folder / "notes.txt").write_text("hello")
    entry = archive.manifest.segments[0]
    (archive.folder / entry.key_name.replace("-t0.", "-other.")).write_bytes(bytes(2048))
    result = run(archive, "verify")
    assert result.exit_code == 0, result.output
    assert "2 objects that no manifest names" in result.stdout
    assert "notes.txt: 5 B" in result.stdout
    (row,) = run_json(archive, "verify")["partitions"]
    assert [(each["name"][-9:], each["size"]) for each in row["orphans"]] == [("r.log.zst", 2048), ("notes.txt", 5)]
    assert all(0 <= each["age_ms"] < 3_600_000 for each in row["orphans"])
    assert row["ok"] is True


def test_verify_calls_nothing_that_is_named_an_orphan(paged: Archive) -> None:
    kept = {page.name for page in paged.manifest.pages}
    (row,) = run_json(paged, "verify")["partitions"]
    assert (row["ok"], row["segments"]) == (True, 9)
    names = {each["name"] for each in row["orphans"]}
    assert names, "the pages that were written anew since"
    assert names == {f"manifest/{file.name}" for file in (paged.folder / "manifest").iterdir()} - kept


def test_verify_finds_a_partition_whose_manifest_is_lost(archive: Archive) -> None:
    forget(archive)
    for command in ("ls", "verify"):
        result = run(archive, command)
        assert result.exit_code == 1
        assert "flights" in result.stdout
        assert "no manifest" in result.stdout
    (row,) = run_json(archive, "verify")["partitions"]
    assert (row["ok"], row["partition"]) == (False, 0)


def test_verify_names_damaged_pages_and_reads_the_rest(paged: Archive) -> None:
    first, second, _ = paged.manifest.pages
    damage(paged.folder / first.name)
    (paged.folder / second.name).unlink()
    result = run_json(paged, "verify")
    assert result["ok"] is False
    (row,) = result["partitions"]
    assert [each["segment"] for each in row["problems"]] == [first.name, second.name]
    assert (row["segments"], row["missing"]) == (3, [])
    assert not [each for each in row["orphans"] if each["name"].endswith(".log.zst")], "they may be named in the page"


def test_verify_names_a_segment_that_is_gone(paged: Archive) -> None:
    entry = listed(paged, paged.manifest)[1]
    (paged.folder / entry.key_name).unlink()
    (row,) = run_json(paged, "verify")["partitions"]
    assert [each["segment"] for each in row["problems"]] == [entry.key_name]


# ---- repair --------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_repair(archive: Archive, paged: Archive) -> None:
    before = (archive.folder / "manifest.json").read_bytes()
    result = run(archive, "repair", "--yes")
    assert (result.exit_code, result.stdout) == (0, "local flights-0: ok\n")
    assert (archive.folder / "manifest.json").read_bytes() == before


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(_: bytes) -> bytes:
    return b""


def of_another(data: bytes) -> bytes:
    return data.replace(b'"partition": 0', b'"partition": 1')


@pytest.mark.parametrize("change", [None, cut, empty, of_another])
def test_a_lost_or_damaged_manifest_is_made_anew(archive: Archive, change: Callable[[bytes], bytes] | None) -> None:
    file = archive.folder / "manifest.json"
    before, said = archive.manifest, values(archive)
    spoiled = change(file.read_bytes()) if change is not None else None
    if spoiled is None:
        file.unlink()
    else:
        file.write_bytes(spoiled)

    for options in (["--dry-run"], []):
        result = run(archive, "repair", *options)
        assert result.exit_code == (0 if options else 1), result.output
        assert "would be made anew of 3 segments: offsets 0 to 11" in result.stdout
        assert "offsets 6 to 9 are recorded as a gap" in result.stdout
        assert ("say --yes" in result.stderr) is not bool(options)
        assert (file.read_bytes() if file.exists() else None) == spoiled, "nothing was changed"

    result = run(archive, "repair", "flights", "--partition", "0", "--yes")
    assert result.exit_code == 0, result.output
    assert "was made anew" in result.stdout
    assert "may be readable again" in result.stdout
    after = loaded(archive)
    assert timeless(after.segments) == timeless(before.segments)
    assert (after.start_offset, after.end_offset, after.epochs) == (0, 12, before.epochs)
    assert (after.cluster_id, [(gap.start, gap.end) for gap in after.gaps]) == (CLUSTER_ID, [(6, 10)])
    assert "when the manifest was rebuilt" in after.gaps[0].cause
    assert after.generation > 1_700_000_000_000, "above any that were counted"
    assert values(archive) == said
    assert run(archive, "verify").exit_code == 0
    assert run(archive, "repair").stdout == "local flights-0: ok\n"
    kept = [each for each in archive.folder.iterdir() if "damaged" in each.name]
    assert [each.read_bytes() for each in kept] == ([spoiled] if spoiled is not None else [])


def test_what_is_said_to_scripts(archive: Archive) -> None:
    forget(archive)
    planned = run_json(archive, "repair", "--dry-run")
    done = run_json(archive, "repair", "--yes")
    (row,) = planned["partitions"]
    names = [entry.key_name for entry in archive.manifest.segments]
    assert (planned["ok"], done["ok"]) == (False, True)
    assert (row["problem"], row["hopeless"], row["changed"]) == ("its manifest is lost", None, False)
    assert (row["start_offset"], row["end_offset"], row["segments"]) == (0, 12, names)
    assert [(gap["start"], gap["end"]) for gap in row["gaps"]] == [(6, 10)]
    assert (row["left_out"], row["damaged"], row["kept_as"]) == ([], [], None)
    assert done["partitions"] == [row | {"changed": True}]
    assert "may be readable again" in done["note"]


def test_archiving_goes_on_behind_it(archive: Archive) -> None:
    forget(archive)
    run(archive, "repair", "--yes")
    archive.manifest = loaded(archive)
    archive.add(batch(12, [b"i"], epoch=2)).save()
    assert values(archive)[-1] == "i"
    assert run(archive, "verify").exit_code == 0


def test_a_merged_segment_wins_over_its_parts(archive: Archive) -> None:
    before = archive.manifest
    archive.manifest = replace(before, segments=(), end_offset=0, epochs=(), gaps=())
    archive.add(batch(0, [b"a", b"b"]), batch(2, [b"c"]), batch(3, [b"d", None, b"f"], epoch=2, codec=1))
    (merged,) = archive.manifest.segments
    archive.save(replace(before, segments=(merged, before.segments[2])))
    forget(archive)
    (row,) = run_json(archive, "repair", "--yes")["partitions"]
    assert row["segments"] == [merged.key_name, before.segments[2].key_name]
    assert {each["segment"] for each in row["left_out"]} == {each.key_name for each in before.segments[:2]}
    assert all("others have its offsets" in each["problem"] for each in row["left_out"])
    assert run(archive, "verify").exit_code == 0


@pytest.fixture
def rewritten(tmp_path: Path) -> Archive:
    """Offsets 0-9 of epoch 1; 10-29 of it are quarantined, for the brokers have 10-12 of epoch 2 instead."""
    archive = Archive(tmp_path)
    for base in range(0, 30, 10):
        archive.add(batch(base, [b"old%d" % base] * 10, epoch=1))
    archive.manifest = rewound(archive.manifest, 10, 0, 5, "elected")
    return claimed(archive.add(batch(10, [b"new"] * 3, epoch=2)).save())


def test_a_history_that_was_rewritten_does_not_come_back(rewritten: Archive) -> None:
    """Also where it covers more than the history that counts."""
    before = rewritten.manifest
    set_aside = before.quarantined[0].segments
    forget(rewritten)
    (row,) = run_json(rewritten, "repair", "--yes")["partitions"]
    assert row["segments"] == [entry.key_name for entry in before.segments]
    assert {each["segment"]: each["problem"] for each in row["left_out"]} == {
        entry.key_name: "its history was rewritten, so it is quarantined" for entry in set_aside
    }
    again = loaded(rewritten)
    assert timeless(again.segments) == timeless(before.segments)
    assert again.epochs == before.epochs
    assert timeless(again.quarantined[0].segments) == timeless(set_aside), "no garbage: nobody else may have it"
    assert again.referenced() == before.referenced()
    assert run(rewritten, "verify").exit_code == 0
    assert values(rewritten) == ["old0"] * 10 + ["new"] * 3


def test_what_is_quarantined_does_not_come_back_into_a_page(paged: Archive) -> None:
    """Where nothing else tells: the new history is not archived again yet at these offsets."""
    (last,) = paged.manifest.segments
    before = replace(paged.manifest, quarantined=(Quarantine(10, 20, 1, "elected", (), (), (stray_of(paged),)),))
    paged.save(before, paging=SMALL)
    (paged.folder / before.pages[0].name).unlink()
    (row,) = run_json(paged, "repair", "--yes")["partitions"]
    assert len(row["segments"]) == 3
    assert [each["problem"] for each in row["left_out"]] == ["it is quarantined: elected"]
    assert listed(paged, loaded(paged))[-1] == last
    assert len(loaded(paged).quarantined) == 1


def stray_of(archive: Archive) -> SegmentEntry:
    """A copy of the segment from 10 on, under a name that comes first."""
    entry = next(each for each in listed(archive, archive.manifest) if each.base_offset == 10)
    stray = replace(entry, key_name=entry.key_name.replace("-t", "-a"))
    assert stray.key_name < entry.key_name
    (archive.folder / stray.key_name).write_bytes((archive.folder / entry.key_name).read_bytes())
    return stray


@pytest.mark.parametrize("damaged", ["old", "new"])
def test_a_partition_that_was_moved_is_made_anew_where_it_lies(archive: Archive, tmp_path: Path, damaged: str) -> None:
    """Its segments are in the old archive, too: a manifest there would be a second truth."""

    async def moved(libraries: dict[str, Library]) -> tuple[str, str]:
        await Move(libraries["old"], libraries["new"], archive.pid).run()
        folder = manifest_key(CLUSTER, archive.pid)
        place = {"old": archive.root, "new": tmp_path / "new"}[damaged] / folder
        place.write_bytes(b"not JSON")
        results = []
        for name in ("old", "new"):
            repairer = Repairer(libraries[name], archive.pid, 1)
            results.append((await repairer.plan()).hopeless)
        return results[0], results[1]

    async def both() -> tuple[str, str]:
        places = {"old": archive.root, "new": tmp_path / "new"}
        libraries = {name: Library(FileStore(place), CLUSTER) for name, place in places.items()}
        for name, library in libraries.items():
            library.stand_beside(name, libraries)
        try:
            return await moved(libraries)
        finally:
            for library in libraries.values():
                await library.store.close()

    old, new = asyncio.run(both())
    assert new == ""
    assert ("is in archive 'new'" if damaged == "old" else "lies in archive 'new'") in old


def test_others_segments_are_never_named(archive: Archive, tmp_path: Path) -> None:
    """Copied here by hand: another partition's, one under a wrong name, one that is cut, one that is none."""
    (tmp_path / "other").mkdir()
    other = Archive(tmp_path / "other", replace(PID, topic_id=bytes(16))).add(batch(12, [b"x"]), after=0).save()
    (foreign,) = other.manifest.segments
    own = archive.manifest.segments[2]
    data = archive.segment_file(2).read_bytes()
    strays = {
        foreign.key_name: other.segment_file(0).read_bytes(),
        own.key_name.replace("00010-", "00012-").replace("00011-", "00099-"): data,
        "00000000000000000012-00000000000000000013-cut.log.zst": data[:-1],
        "00000000000000000012-00000000000000000013-none.log.zst": b"x",
    }
    for name, stray in strays.items():
        (archive.folder / name).write_bytes(stray)
    forget(archive)
    (row,) = run_json(archive, "repair", "--yes")["partitions"]
    assert row["segments"] == [entry.key_name for entry in archive.manifest.segments]
    assert {each["segment"] for each in row["left_out"]} == set(strays)
    reasons = " ".join(each["problem"] for each in row["left_out"])
    assert "it holds offsets 10 to 11 of flights-0" in reasons
    assert "no trailer" in reasons


def test_a_damaged_segment_is_named_if_nobody_else_has_its_offsets(archive: Archive) -> None:
    entry = archive.manifest.segments[1]
    damage(archive.segment_file(1))
    forget(archive)
    result = run(archive, "repair", "--yes")
    assert result.exit_code == 0, result.output
    assert f"{entry.key_name} is damaged, but nothing else has its offsets" in result.stdout
    assert loaded(archive).end_offset == 12
    verified = run(archive, "verify")
    assert verified.exit_code == 1
    assert entry.key_name in verified.stdout
    run(archive, "repair", "--yes")


def test_a_damaged_segment_is_exchanged_for_others_that_have_its_offsets(archive: Archive) -> None:
    before = archive.manifest
    archive.manifest = replace(before, segments=(), end_offset=0, epochs=(), gaps=())
    archive.add(batch(0, [b"a", b"b"]), batch(2, [b"c"]), batch(3, [b"d", None, b"f"], epoch=2, codec=1))
    (merged,) = archive.manifest.segments
    damage(archive.segment_file(0))
    archive.save(before)
    forget(archive)
    (row,) = run_json(archive, "repair", "--yes")["partitions"]
    assert row["segments"] == [each.key_name for each in before.segments]
    ((left,), damaged) = row["left_out"], row["damaged"]
    assert (left["segment"], damaged) == (merged.key_name, [])
    assert "it is damaged, and others have its offsets" in left["problem"]
    assert run(archive, "verify").exit_code == 0


def test_a_page_is_made_anew(paged: Archive) -> None:
    before, entries = paged.manifest, listed(paged, paged.manifest)
    first, second, third = before.pages
    damage(paged.folder / first.name)
    (paged.folder / second.name).unlink()
    entry = entries[4]
    (paged.folder / entry.key_name).unlink()
    result = run(paged, "repair", "--yes")
    assert result.exit_code == 0, result.output
    assert "2 of its pages were made anew of 5 segments" in result.stdout
    assert "offsets 40 to 49 are recorded as a gap" in result.stdout
    after = loaded(paged)
    assert (after.generation, after.segments) == (before.generation + 1 + 1, before.segments)
    assert third in after.pages or after.pages[-1].last_offset == third.last_offset
    assert timeless(listed(paged, after)) == timeless(each for each in entries if each != entry)
    assert run(paged, "verify").exit_code == 0


def test_what_pages_still_say_need_not_be_read_from_segments(paged: Archive) -> None:
    entries = listed(paged, paged.manifest)
    forget(paged)
    run(paged, "repair", "--yes")
    after = loaded(paged)
    created = [each.created_ms for each in listed(paged, after)]
    assert created[:8] == [each.created_ms for each in entries[:8]]
    assert created[8] > TIME, "of the one in the root only the object's own time is known"
    assert timeless(listed(paged, after)) == timeless(entries)


@pytest.mark.parametrize("lost", [True, False])
def test_a_manifest_that_somebody_wrote_meanwhile_stays(archive: Archive, lost: bool) -> None:
    file = archive.folder / "manifest.json"
    whole = file.read_bytes()
    forget(archive)
    if not lost:
        file.write_bytes(b"damaged")

    async def repair(library: Library) -> None:
        repairer = Repairer(library, PID, TIME)
        assert (await repairer.plan()).problem
        file.write_bytes(whole)
        with pytest.raises(TierproxyError, match="changed meanwhile"):
            await repairer.carry_out(lambda _: None)

    archive.do(repair)
    assert file.read_bytes() == whole


def test_trouble_with_one_partition_does_not_keep_others_from_repair(archive: Archive, tmp_path: Path) -> None:
    other = Archive(tmp_path, replace(PID, partition=1)).add(batch(0, [b"x"])).save()
    for each in (archive, other):
        forget(each)
    (archive.folder / "manifest.json").mkdir()
    result = run(archive, "repair", "--yes")
    assert result.exit_code == 1
    assert "can't" in result.stdout.splitlines()[0]
    assert "local flights-1: its manifest is lost; it was made anew" in result.stdout
    assert loaded(other).end_offset == 1


def test_a_newer_version_is_no_damage(archive: Archive) -> None:
    file = archive.folder / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"version": 2', b'"version": 9'))
    before = file.read_bytes()
    result = run(archive, "repair", "--yes")
    assert result.exit_code == 1
    assert "version 9" in result.stdout
    assert file.read_bytes() == before


def test_without_a_record_of_the_cluster_there_is_no_repair(archive: Archive) -> None:
    forget(archive)
    (archive.root / "prod" / "cluster.json").unlink()
    result = run(archive, "repair", "--yes")
    assert result.exit_code == 1
    assert "cluster.json is lost" in result.stdout


def test_where_no_segment_can_be_read_there_is_no_repair(archive: Archive) -> None:
    forget(archive)
    for number in range(3):
        archive.segment_file(number).write_bytes(b"x")
    result = run(archive, "repair", "--yes")
    assert result.exit_code == 1
    assert "no readable segment" in result.stdout
    assert not (archive.folder / "manifest.json").exists()


def test_dry_run_and_yes_contradict_each_other(archive: Archive) -> None:
    assert run(archive, "repair", "--yes", "--dry-run").exit_code == 2
