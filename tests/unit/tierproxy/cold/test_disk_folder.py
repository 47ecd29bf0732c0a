"""The disk cache's directory: never a wrong byte, never more bytes than it may take, nobody else's files touched."""

import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tierproxy.clock import ManualClock
from tierproxy.cold.disk_extents import BLOCK, PAGE
from tierproxy.cold.disk_folder import DiskFolder
from tierproxy.cold.disk_room import MARKER, TEMPORARY, USAGE, NotOurs, free_and_used

SIZE = 2 << 20
OBJECT = 600_000
KEYS = ("main/a", "main/b", "other/a")
OBJECTS = {key: random.Random(key).randbytes(OBJECT) for key in KEYS}


def folder(root: Path, size: int = SIZE, clock: ManualClock | None = None) -> DiskFolder:
    made = DiskFolder(root, size, (clock or ManualClock()).monotonic)
    made.prepare()
    return made


def extents(root: Path) -> list[Path]:
    """The oldest first."""
    return sorted(root.glob("??/*/*"), key=lambda path: path.stat().st_mtime_ns)


def taken(root: Path) -> int:
    files = extents(root) + list((root / TEMPORARY).iterdir())
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_was_written_is_read_and_any_part_of_it(root: Path) -> None:
    one, data = folder(root), OBJECTS["main/a"]
    assert one.write("main/a", 1000, memoryview(data)[1000:201_000]) == 200_000
    for start, end in ((1000, 201_000), (1000, 1001), (200_999, 201_000), (70_000, 140_000), (1000 + BLOCK, 200_000)):
        assert one.read("main/a", start, end) == data[start:end]
    for start, end in ((999, 2000), (200_000, 201_001), (0, 10), (300_000, 300_001)):
        assert one.read("main/a", start, end) is None
    assert one.read("other/a", 1000, 1001) is None
    assert folder(root).read("main/a", 1000, 201_000) == data[1000:201_000]


def test_a_range_is_put_together_and_not_stored_twice(root: Path) -> None:
    one, data = folder(root), OBJECTS["main/a"]
    for start, end in ((0, 100_000), (90_000, 180_000), (180_000, 300_000)):
        assert one.write("main/a", start, data[start:end]) == end - start
    assert one.read("main/a", 50_000, 290_000) == data[50_000:290_000]
    assert one.write("main/a", 50_000, data[50_000:290_000]) == 0
    assert len(extents(root)) == 3


def test_several_see_what_one_writes_and_removes(root: Path) -> None:
    one, other, data = folder(root), folder(root), OBJECTS["main/a"]
    assert other.read("main/a", 0, 1000) is None
    one.write("main/a", 0, data[:1000])
    assert other.read("main/a", 0, 1000) == data[:1000]
    one.drop("main/a", 500, 501)
    assert other.read("main/a", 0, 1000) is None
    assert extents(root) == []
    assert one.write("main/a", 0, data[:1000]) == 1000
    assert other.read("main/a", 0, 1000) == data[:1000]


def test_records_are_nobody_elses_to_read(root: Path) -> None:
    folder(root).write("main/a", 0, b"x")
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_file_that_ends_with_a_block_too_early_is_damaged(root: Path, blocks: int) -> None:
    one, data = folder(root), OBJECTS["main/a"][: 3 * BLOCK]
    one.write("main/a", 0, data)
    os.truncate(extents(root)[0], PAGE + blocks * BLOCK)
    assert one.read("main/a", 0, max(1, blocks * BLOCK)) == (data[: blocks * BLOCK] or None)
    assert one.read("main/a", 0, 3 * BLOCK) is None
    assert extents(root) == []


def test_a_change_that_the_folders_time_hides_is_found_by_reading(root: Path) -> None:
    one = folder(root)
    one.write("main/a", 0, b"x")
    file = extents(root)[0]
    mtime_ns = file.parent.stat().st_mtime_ns
    file.unlink()
    os.utime(file.parent, ns=(mtime_ns, mtime_ns))
    assert one.write("main/a", 0, b"x") == 0
    assert one.read("main/a", 0, 1) is None
    assert one.write("main/a", 0, b"x") == 1


# -- the bound --------------------------------------------------------------------------------------------------------


def test_the_longest_unused_goes_first(root: Path) -> None:
    clock = ManualClock()
    one, data = folder(root, SIZE, clock), OBJECTS["main/a"]
    keys = [f"main/{n}" for n in range(10)]
    for age, key in enumerate(keys):
        one.write(key, 0, data[:200_000])
        os.utime(max(extents(root), key=lambda path: path.stat().st_mtime_ns), ns=(0, age + 1))
    clock.advance(61)
    assert one.read(keys[0], 0, 1) is not None  # the oldest is of use again
    one.write("main/a", 0, data[:200_000])
    here = [one.read(key, 0, 200_000) is not None for key in keys]
    assert here == [True, False, False, *[True] * 7]


def test_reading_does_not_write_each_time(root: Path) -> None:
    clock = ManualClock()
    one = folder(root, SIZE, clock)
    one.write("main/a", 0, b"x")
    os.utime(extents(root)[0], ns=(0, 1))
    assert one.read("main/a", 0, 1) == b"x"
    assert extents(root)[0].stat().st_mtime_ns == 1
    clock.advance(61)
    assert one.read("main/a", 0, 1) == b"x"
    assert extents(root)[0].stat().st_mtime_ns > 1


def test_a_smaller_size_shrinks_it_at_the_start(root: Path) -> None:
    one, data = folder(root), OBJECTS["main/a"]
    for n in range(9):
        one.write(f"main/{n}", 0, data[:150_000])
    assert taken(root) > SIZE // 2
    folder(root, SIZE // 2)
    assert SIZE // 4 < taken(root) <= SIZE // 2


def test_what_is_too_large_is_not_taken(root: Path) -> None:
    one = folder(root)
    assert one.write("main/a", 0, bytes(SIZE // 8)) == 0
    assert one.write("main/a", 0, bytes(SIZE // 8 - PAGE)) > 0


def test_folders_of_objects_do_not_pile_up(root: Path) -> None:
    one = folder(root)
    for n in range(50):
        one.write(f"main/{n}", 0, bytes(200_000))
    assert len(list(root.glob("??/*"))) == len(extents(root))
    for n in range(50):
        one.drop(f"main/{n}", 0, 1)
    folder(root)
    assert list(root.glob("??/*")) == []


# -- the directory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.txt", "00", ".hidden"])
def test_a_directory_with_something_else_in_it_is_left_alone(root: Path, name: str) -> None:
    root.mkdir()
    (root / name).write_text("precious")
    with pytest.raises(NotOurs, match=r"not a disk cache's .* a directory of its own"):
        folder(root)
    assert [path.name for path in root.iterdir()] == [name]


def test_a_file_is_no_directory(root: Path) -> None:
    root.write_text("precious")
    with pytest.raises(NotOurs, match="is not a directory"):
        folder(root)


def test_a_new_file_system_is_empty_enough(root: Path) -> None:
    (root / "lost+found").mkdir(parents=True)
    assert folder(root).write("main/a", 0, b"x") == 1


def test_other_files_in_a_cache_stay(root: Path) -> None:
    folder(root).write("main/a", 0, b"x")
    mine = [root / "note", root / "tmp" / "note", root / "ab" / "note", extents(root)[0].parent / "note"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    (root / MARKER).write_text("Format 0")
    small = folder(root, 8 * PAGE)
    assert small.read("main/a", 0, 1) is None
    assert all(path.read_text() == "precious" for path in mine)


@pytest.mark.parametrize("marker", ["", "A cache of another format", "\xff"])
def test_another_format_empties_it(root: Path, marker: str) -> None:
    folder(root).write("main/a", 0, b"x")
    before = (root / MARKER).read_bytes()
    (root / MARKER).write_text(marker)
    assert folder(root).read("main/a", 0, 1) is None
    assert (extents(root), taken(root)) == ([], 0)
    assert (root / MARKER).read_bytes() == before


def test_a_directory_that_goes_away_is_told(root: Path) -> None:
    one = folder(root)
    one.write("main/a", 0, b"x")
    shutil.rmtree(root)
    assert one.read("main/a", 0, 1) is None
    with pytest.raises(FileNotFoundError):
        one.write("main/a", 0, b"x")
    one.prepare()
    assert one.write("main/a", 0, b"x") == 1


def test_how_much_room_there_is(root: Path, tmp_path: Path) -> None:
    free, used = free_and_used(root / "not" / "yet")
    assert free > 0
    assert used == 0
    assert list(tmp_path.iterdir()) == []
    folder(root).write("main/a", 0, bytes(100_000))
    assert free_and_used(root)[1] == taken(root) > 100_000
    with pytest.raises(NotOurs):
        free_and_used(tmp_path)


# -- anything at all --------------------------------------------------------------------------------------------------


def damageable(model: "Model") -> bool:
    return bool(extents(model.root))


class Model(RuleBasedStateMachine):
    """Two that share a directory, and a disk that forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()
        self.root = Path(self.cleanup.enter_context(tempfile.TemporaryDirectory())) / "cache"

    def teardown(self) -> None:
        self.cleanup.close()

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.both = [folder(self.root, SIZE, self.clock), folder(self.root, SIZE, self.clock)]

    who = st.integers(0, 1)
    key = st.sampled_from(KEYS)
    start = st.sampled_from(range(0, OBJECT, 50_000)) | st.integers(0, OBJECT - 1)
    length = st.sampled_from([1, 50_000, BLOCK, 2 * BLOCK, 200_000]) | st.integers(1, 300_000)

    @rule(who=who, key=key, start=start, length=length)
    def put(self, who: int, key: str, start: int, length: int) -> None:
        data = OBJECTS[key][start : start + length]
        if self.both[who].write(key, start, data):
            assert self.both[1 - who].read(key, start, start + len(data)) == data

    @rule(who=who, key=key, start=start, length=length)
    def get(self, who: int, key: str, start: int, length: int) -> None:
        found = self.both[who].read(key, start, start + length)
        assert found is None or found == OBJECTS[key][start : start + length]

    @rule(who=who, key=key, start=start, length=length)
    def drop(self, who: int, key: str, start: int, length: int) -> None:
        self.both[who].drop(key, start, start + length)
        assert self.both[1 - who].read(key, start, start + 1) is None

    @rule(who=who, size=st.sampled_from([SIZE, SIZE // 2]))
    def restart(self, who: int, size: int) -> None:
        self.both[who] = folder(self.root, size, self.clock)

    @rule(seconds=st.sampled_from([1, 100]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(damageable)
    @rule(
        number=st.integers(0),
        how=st.sampled_from(["flip", "truncate", "zero", "empty", "swap", "gone"]),
        at=st.integers(0),
    )
    def damage(self, number: int, how: str, at: int) -> None:
        files = extents(self.root)
        file = files[number % len(files)]
        data = bytearray(file.read_bytes())
        at %= len(data) or 1
        if how == "flip" and data:
            data[at] ^= 1 << number % 8
        elif how == "truncate":
            del data[at:]
        elif how == "zero":
            data[at:] = bytes(len(data) - at)
        elif how == "empty":
            data = bytearray()
        elif how == "swap":
            data = bytearray(files[at % len(files)].read_bytes()[: len(data)])
        file.unlink() if how == "gone" else file.write_bytes(data)

    @rule(junk=st.binary(max_size=20))
    def forget_the_count(self, junk: bytes) -> None:
        (self.root / USAGE).write_bytes(junk)

    @invariant()
    def bounded(self) -> None:
        assert taken(self.root) <= SIZE


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

# -- processes --------------------------------------------------------------------------------------------------------

WRITER = """
import random, sys
from pathlib import Path
from tests.unit.tierproxy.cold.test_disk_folder import KEYS, OBJECT, OBJECTS, folder
chance, cache = random.Random(sys.argv[2]), folder(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    key, start = chance.choice(KEYS), chance.randrange(OBJECT)
    end = min(OBJECT, start + chance.randrange(1, 250_000))
    cache.write(key, start, OBJECTS[key][start:end])
    start = chance.randrange(OBJECT)
    found = cache.read(key, start, min(OBJECT, start + 1000))
    if found is not None and found != OBJECTS[key][start : start + 1000]:
        sys.exit("a wrong byte")
"""


@pytest.fixture
def writers(root: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, root, str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[4],
            env={**os.environ, "PYTHONPATH": "."},
        )
        for seed in range(3)
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    yield started
    for each in started:
        each.kill()
        each.communicate()


def sound(cache: DiskFolder) -> int:
    """Read everything; how much was there."""
    there = 0
    for key, data in OBJECTS.items():
        for start in range(0, OBJECT, 10_000):
            found = cache.read(key, start, start + 10_000)
            assert found is None or found == data[start : start + 10_000]
            there += found is not None
    return there


def test_processes_share_it_and_die_at_any_moment(root: Path, writers: list[subprocess.Popen[str]]) -> None:
    mine = folder(root)
    for dying in writers:
        for key in KEYS:
            mine.write(key, 5, OBJECTS[key][5:100_000])
        for _ in range(100):
            assert taken_by_others(root) <= SIZE
        assert dying.poll() is None, "a writer has found a wrong byte"
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        sound(mine)
    again = folder(root)
    assert list((root / TEMPORARY).iterdir()) == []
    assert sound(again) > 0


def taken_by_others(root: Path) -> int:
    """As taken(), while files come and go."""
    total = 0
    for path in [*(root / TEMPORARY).glob("*"), *root.glob("??/*/*")]:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(root: Path) -> None:
    one = folder(root)
    left = root / TEMPORARY / f"{PAGE}-{'0' * 32}"
    left.write_bytes(bytes(PAGE))
    held = root / TEMPORARY / f"{SIZE // 2}-{'1' * 32}"
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one = folder(root)
        assert [path.name for path in (root / TEMPORARY).iterdir()] == [held.name]
        for n in range(20):
            one.write(f"main/{n}", 0, bytes(200_000))
            assert taken(root) <= SIZE // 2
    folder(root)
    assert list((root / TEMPORARY).iterdir()) == []
