"""`make run` from a fresh copy: everything is up, and nothing of it outlives it, however it ends."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.gateway import environment
from tests.support.network import NO_TLS
from tests.support.processes import ROOT, Process, free_port, temporary_directory
from tests.support.waiting import PATIENCE_SECONDS, eventually

STARTED = "The chat gateway is up."


@pytest.fixture
def copy() -> Path:
    """The repository without what it keeps between runs, where other users may enter as well."""
    folder = temporary_directory("gateway-demo-")
    folder.chmod(0o755)
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks"))
    return folder / "copy"


def test_it_serves_and_leaves_nothing_when_it_is_killed_or_told_to_end(copy: Path) -> None:
    ports = {name: free_port() for name in ("PORT", "LLM_PORT", "MCP_PORT")}
    values = environment({name: str(port) for name, port in ports.items()})
    for ending in (signal.SIGKILL, signal.SIGTERM):
        demo = Process([sys.executable, "-m", "demo"], environment=values, directory=copy, last_signal=signal.SIGTERM)
        eventually(lambda demo=demo: STARTED in demo.output() or not demo.running(), 2 * PATIENCE_SECONDS, STARTED)  # type: ignore[misc]
        assert STARTED in demo.output(), demo.output()
        for path in ("/api/qna/faq", "/api/chat/personas"):
            url = f"http://127.0.0.1:{ports['PORT']}{path}"
            assert len(httpx.get(url, trust_env=False, verify=NO_TLS).content) > 100
        check_that_answers_grow(f"http://127.0.0.1:{ports['LLM_PORT']}/llm/mcp-router/dispatch")
        started = psutil.Process(demo.pid).children(recursive=True)
        assert len(started) > 5
        os.kill(demo.pid, ending)
        assert demo.wait(PATIENCE_SECONDS) == (0 if ending == signal.SIGTERM else -ending)
        assert psutil.wait_procs(started, PATIENCE_SECONDS)[1] == []


def check_that_answers_grow(url: str) -> None:
    """For who accepts events, by pieces that make up the plain reply, which comes last; plain for the rest."""
    question = {"query": "리볼빙 뜻이 뭐예요?", "session_id": "00000000-0000-4000-8000-000000000000"}
    with httpx.Client(trust_env=False, verify=NO_TLS, timeout=PATIENCE_SECONDS) as http:
        plain = http.post(url, json=question).json()
        reply = http.post(url, json=question, headers={"accept": "application/json, text/event-stream"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    tool, *pieces, last = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n") if line]
    assert tool == {"tool_name": "query_term_database"}
    content = plain["tool_response"]["tool_response_content"]
    assert last["tool_response"]["tool_response_content"] == content
    assert len(pieces) > 5
    assert "".join(piece["delta"] for piece in pieces) == content["answer"]
