"""docs/operations.md: the tests that its table of situations names exist."""

import re

from tests.support.processes import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text("utf-8")
SITUATIONS = TEXT.split("## What happens when\n")[1].split("\n## ")[0]


def test_each_situation_has_a_test() -> None:
    rows = [line for line in SITUATIONS.splitlines() if line.startswith("|")][2:]
    named = [re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2]) for row in rows]
    assert rows and all(named), rows
    files = (ROOT / "tests").rglob("test_*.py")
    tests = {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text("utf-8"), re.M)
    }
    assert {name for names in named for name in names} <= tests
