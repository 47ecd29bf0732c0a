"""The configuration file is followed, however it is replaced; with real files."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tierproxy.clock import ManualClock
from tierproxy.config import Config, load_config
from tierproxy.reload import LINES, ConfigFile

TEXT = """\
cluster: {{name: prod, bootstrap: [kafka-0:9092]}}
listen: {{advertised_host: localhost}}
archives: {{main: {{url: "s3://bucket", access_key: AKIA1, secret_key: topsecret}}}}
topics: [{{match: a, archive: main, compression: zstd-{level}}}]
"""


def text(level: int = 3, more: str = "") -> str:
    return TEXT.format(level=level) + more


class Followed:
    """A file that is followed, and what is put in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put: list[Config] = []
        self.file = ConfigFile(path, load_config(path), self.put.append, ManualClock(1_000_000))

    @property
    def levels(self) -> list[int]:
        return [config.topics[0].compression for config in self.put]

    async def looks(self, times: int = 2) -> None:
        for _ in range(times):
            await self.file.look()


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tierproxy.config")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text())
    return path


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tierproxy_config_{name}", labels) or 0.0


def written_over(path: Path, new: str) -> None:
    path.write_text(new)


def renamed_over(path: Path, new: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(new)
    other.rename(path)


def removed_and_made(path: Path, new: str) -> None:
    path.unlink()
    path.write_text(new)


@pytest.mark.parametrize("replace", [written_over, renamed_over, removed_and_made])
async def test_a_file_that_is_replaced_is_put_in_force(
    path: Path, replace: Callable[[Path, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(path)
    await followed.looks(3)
    assert followed.put == []
    applied = sample("reads_total", result="applied")
    replace(path, text(level=19))
    await followed.looks(3)
    assert followed.levels == [19]
    assert sample("reads_total", result="applied") == applied + 1
    assert caplog.messages == [
        f"{path} was read again and is in force now: 1 change",
        "configuration: topics[a].compression: zstd-3 → zstd-19",
    ]


async def test_a_config_map_of_kubernetes_is_followed(tmp_path: Path) -> None:
    """The file is a link to `..data/config.yaml`, and `..data` a link to a folder, which is replaced."""

    def volume(name: str, level: int) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text(level))
        os.symlink(name, tmp_path / "..data_tmp")
        os.rename(tmp_path / "..data_tmp", tmp_path / "..data")

    volume("..2026_01", 3)
    os.symlink("..data/config.yaml", tmp_path / "config.yaml")
    followed = Followed(tmp_path / "config.yaml")
    volume("..2026_02", 7)
    await followed.looks()
    assert followed.levels == [7]


async def test_what_is_being_written_is_left_alone_until_it_stands_still(path: Path) -> None:
    followed = Followed(path)
    whole = text(level=19)
    for end in range(len(whole) - 30, len(whole) + 1, 10):
        path.write_text(whole[:end])
        await followed.looks(1)
    path.write_text(whole)
    assert followed.put == []
    await followed.looks()
    assert followed.levels == [19]


async def test_what_is_asked_for_is_read_at_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(path)
    followed.file.ask()
    await followed.looks(1)
    assert caplog.messages == [f"{path} was read again: nothing in it has changed"]
    path.write_text(text(level=19))
    followed.file.ask()
    await followed.looks(1)
    assert followed.levels == [19]


async def test_a_broken_file_is_told_once_with_every_fault_and_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(path)
    path.write_text(text(more="limits: {frame: 3, connections: 0}\nlog: {level: debug}\n"))
    await followed.looks(5)
    assert followed.put == []
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert "is not put in force, for 2 reasons: what was in force stays" in caplog.messages[0]
    assert caplog.messages[1] == "configuration: limits.connections (line 5): must be between 1 and 1000000, not 0"
    assert caplog.messages[2].startswith("configuration: limits.frame (line 5): '3' needs a unit")
    assert sample("refused", why="faults") == 1
    path.write_text(text(level=9))
    await followed.looks()
    assert followed.levels == [9]
    assert sample("refused", why="faults") == 0
    assert sample("read_timestamp_seconds", result="applied") == 1_000


async def test_a_file_that_nobody_could_foresee_is_a_broken_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(path)
    path.write_text(text(more=f"limits: {'[' * 5_000}"))
    await followed.looks(3)
    assert followed.put == []
    assert caplog.messages[1:] == ["configuration: can't be read: RecursionError"]
    path.write_text(text(level=9))
    await followed.looks()
    assert followed.levels == [9]


async def test_a_file_that_is_gone_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(path)
    path.unlink()
    await followed.looks(4)
    assert followed.put == []
    assert [message for message in caplog.messages if "No such file" in message] == caplog.messages[1:]
    path.write_text(text())
    await followed.looks()
    assert caplog.messages[-1].endswith("nothing in it has changed")
    assert sample("refused", why="faults") == 0


async def test_with_one_key_that_needs_a_restart_nothing_is_put_in_force(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(path)
    path.write_text(text(level=9, more="cache: {memory: 1GiB}\n").replace("topsecret", "othersecret"))
    await followed.looks(3)
    assert followed.put == []
    assert caplog.messages[1:] == [
        "configuration: archives.main.secret_key: (secret) → (another one) needs a restart",
        "configuration: cache.memory: 256MiB → 1GiB needs a restart",
    ]
    assert "restart tierproxy" in caplog.messages[0]
    assert sample("refused", why="restart") == 1
    assert "secret" not in caplog.text.replace("(secret)", "").replace("secret_key", "")
    path.write_text(text(level=9))
    await followed.looks()
    assert followed.levels == [9]


async def test_a_new_warning_is_said_an_old_one_is_not(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(path)
    path.write_text(text(more="").replace("zstd-3}", "zstd-3, trim: never, keep_on_broker: {time: 1d}}"))
    await followed.looks()
    path.write_text(text(level=9).replace("zstd-9}", "zstd-9, trim: never, keep_on_broker: {time: 1d}}"))
    await followed.looks()
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["configuration: topics[0].keep_on_broker: has no effect with 'trim: never'"]


async def test_many_changes_do_not_fill_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(path)
    many = ", ".join(f"{{match: t{number}, archive: main}}" for number in range(3 * LINES))
    path.write_text(text().replace("topics: [", f"topics: [{many}, "))
    await followed.looks()
    assert len(followed.put) == 1
    assert len(caplog.messages) == LINES + 2
    assert caplog.messages[-1] == f"configuration: and {2 * LINES} more"
