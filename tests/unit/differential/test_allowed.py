"""What the comparison excuses is what ALLOWED.md says, no more and no less."""

import re
from pathlib import Path

from tests import differential
from tests.differential.findings import Allowed


def test_each_allowed_difference_has_its_line() -> None:
    text = (Path(differential.__file__).parent / "ALLOWED.md").read_text()
    lines = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert sorted(lines) == sorted(why.value for why in Allowed)
