"""SECURITY.md: the tests that it names are there."""

import re

from tests.support.processes import ROOT

TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


def test_its_tests_exist() -> None:
    files = set(re.findall(r"`(?:tests/)?(\w+/(?:test_\w+\.py)?)`", TEXT))
    assert len(files) > 10
    assert not [file for file in files if not (ROOT / "tests" / file).exists()]
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 5
    assert not [name for name in names if f"def {name}(" not in tests]
