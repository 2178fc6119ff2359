"""Debian's own PostgreSQL, another version than the embedded one."""

import os
from pathlib import Path

import pytest

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def need_debians_postgresql() -> Path:
    """Where its programs are. Skips the test where they are not; CI has them."""
    if not (PROGRAMS / "postgres").exists():
        where = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        where("PostgreSQL 15 is not installed (Debian: apt install postgresql-15)")
    return PROGRAMS
