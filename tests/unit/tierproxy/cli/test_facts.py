"""What `tierproxy check` finds out where no broker answers."""

from pathlib import Path

from tierproxy.cli.facts import Facts, gather
from tierproxy.clock import SystemClock
from tierproxy.config import parse_config


async def found(path: Path) -> Facts:
    config = parse_config(
        "cluster: {name: prod, bootstrap: ['127.0.0.1:1']}\nlisten: {advertised_host: localhost}\n"
        f"cache: {{disk: {{path: {path}, size: 1GiB}}}}"
    )
    return await gather(config, SystemClock())


async def test_the_room_for_the_disk_cache(tmp_path: Path) -> None:
    about = (await found(tmp_path / "cache")).disk_cache
    assert isinstance(about, tuple)
    assert about[0] > about[1] == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_that_can_not_be_the_disk_cache(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert "precious" in str((await found(tmp_path)).disk_cache)
    for path in (tmp_path / "precious", tmp_path / "precious" / "cache"):
        assert "precious is not a directory" in str((await found(path)).disk_cache)
