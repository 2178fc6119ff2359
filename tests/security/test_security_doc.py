"""SECURITY.md: the tests that it names are there."""

import json
import re

from tests.security import measured
from tests.support.processes import ROOT

BLOCK = re.compile(r"<!-- made: attacks -->\n(.*?)<!-- end -->", re.DOTALL)
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


def test_its_tests_exist() -> None:
    files = set(re.findall(r"`(?:tests/)?(\w+/(?:test_\w+\.py)?)`", TEXT))
    assert len(files) > 10
    assert not [file for file in files if not (ROOT / "tests" / file).exists()]
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 5
    assert not [name for name in names if f"def {name}(" not in tests]


def test_what_was_measured_stands_in_it_as_the_run_has_written_it() -> None:
    """Two tables: every input answered rightly and no session lost, and what others noticed of each kind of abuse."""
    (block,) = BLOCK.findall(TEXT)
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"]
    inputs = [row for row in rows if row[2:] == ["0", "0"]]
    counts = [int(row[1].replace(",", "")) for row in inputs]
    assert sum(counts[:-1]) == counts[-1] > 0
    abuse = rows[len(inputs) + 4 :]
    assert len(inputs) + 4 + len(abuse) == len(rows)
    for _, before, during, more in abuse:
        assert int(during) <= 2 * int(before) + 20
        assert int(more) < 300
    assert json.loads(measured.RESULTS.read_text("utf-8"))["abuse"].keys() == {row[0] for row in abuse}
