"""At the end of a long run what it has measured is kept, if nothing failed and nothing is missing."""

import pytest

from tests.security import measured


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if missing := measured.PARTS - set(measured.found):
        if measured.found:
            terminalreporter.write_line(f"not written to {measured.RESULTS.name}: {', '.join(sorted(missing))} missing")
    elif exitstatus == 0:
        measured.write()
        terminalreporter.write_line(f"written to {measured.RESULTS.name}; now: python -m benchmarks.documents")
