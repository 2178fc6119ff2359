"""What so many visitors need: the program that says it, and the storms that it plays."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.capacity.__main__ import read_units
from benchmarks.capacity.model import Model, Visitors
from benchmarks.capacity.storm import FIRST_PAUSE, HELLO_SECONDS, LONGEST_PAUSE, Storm, play
from tests.support.processes import ROOT

MILLION = Visitors(1_000_000, 6, 0.8)


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.capacity", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_it_says_what_is_needed_with_the_formula_of_each_figure() -> None:
    done = ask("--sessions", "100000", "--prompts-per-hour", "6", "--streamed", "0.8")
    assert done.returncode == 0, done.stderr
    for name in ("instances", "gateway", "memory", "connections", "statements", "commits", "NOTIFYs", "WAL", "storage"):
        assert re.search(rf"^{name} +[\d,.]+ .*= .+$", done.stdout, re.MULTILINE), name
    assert "give out first" in done.stdout


@pytest.mark.parametrize("arguments", [("--sessions", "0"), ("--prompts-per-hour", "-1"), ("--streamed", "1.5")])
def test_what_cannot_be_is_refused(arguments: tuple[str, str]) -> None:
    done = ask(*arguments)
    assert done.returncode == 2
    assert "above 0" in done.stderr


def test_more_visitors_take_more_of_everything() -> None:
    units = read_units()
    few, many = Model(units, MILLION, 10_000), Model(units, replace(MILLION, sessions=2_000_000), 10_000)
    for before, after in zip(few.lines(), many.lines(), strict=True):
        assert after.value >= before.value * 0.9, before.name
    assert many.instances > few.instances


def test_an_instance_is_never_fuller_than_it_may_be() -> None:
    model = Model(read_units(), replace(MILLION, prompts_per_hour=600), 10_000)
    assert model.instances > 100
    assert model.core_share <= 0.6


def test_a_storm_waits_for_the_doors_and_ends() -> None:
    quick = play(Storm("", [(0.0, 10_000)], handshakes=10_000))
    slow = play(Storm("", [(0.0, 10_000)], handshakes=500))
    closed = play(Storm("", [(0.0, 10_000)], handshakes=10_000, closed_until=30))
    assert quick.all_back < 3
    assert 10_000 / 500 <= slow.all_back < 90
    assert 30 <= closed.half_back < closed.all_back < 70


def test_the_pauses_are_the_pages_own() -> None:
    text = "\n".join(file.read_text("utf-8") for file in sorted((ROOT / "web").glob("*.js")))
    found = {
        name: int(value.replace("_", "")) / 1000 for name, value in re.findall(r"const (\w+_MS) = ([\d_]+);", text)
    }
    assert (found["FIRST_PAUSE_MS"], found["LONGEST_PAUSE_MS"], found["HELLO_MS"]) == (
        FIRST_PAUSE,
        LONGEST_PAUSE,
        HELLO_SECONDS,
    )
