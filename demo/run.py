"""Starts the demo: a private PostgreSQL, stand-ins for the LLM and the MCP server, and the gateway.

    make run        or, once that has installed everything:  .venv/bin/python -m demo

Ctrl-C or SIGTERM ends all of it. PORT (8001), LLM_PORT (8000) and MCP_PORT (8011) are environment variables, and so is
MCP: with `native` the MCP server is one made with the official SDK, and spoken to as the Model Context Protocol has it.
"""

import asyncio
import contextlib
import fcntl
import http.client
import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from demo import databases
from demo.postgres import ENVIRONMENT, Place
from demo.processes import apart, dismiss_guardian, guard, unguard

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"  # PostgreSQL's data, kept between runs
NATIVE_PYTHON = ROOT / ".venv-mcp2" / "bin" / "python"  # which has the SDK
READY_SECONDS = 30  # for a server to answer after it was started
END_SECONDS = 10  # for a process to end after it was told to; then it is killed

GREETING = """
The chat gateway is up. Ctrl-C ends it.

  open    {http}/       to chat
          {http}/docs   the API
  ask     카드를 잃어버렸는데 어떻게 신고하나요?
          커피와 배달 할인이 되는 카드를 추천해 주세요
          내 소비에 맞는 카드를 추천해 주세요   (asks for a login)
  socket  .venv/bin/python -m websockets {ws}/api/chat/ws
          {{"message_id": "{message_id}", "message": "리볼빙 뜻이 뭐예요?"}}
  curl    curl '{http}/api/qna/faq?top_k=3'
"""


class CannotRun(Exception):
    """The demo does not start, or does not go on. The text is one sentence for whoever started it."""


@dataclass(frozen=True)
class Child:
    name: str
    process: asyncio.subprocess.Process
    ending: signal.Signals  # what tells it to end
    lasting: bool  # it ends only when told to
    output: "asyncio.Task[None]"


def main() -> int:
    try:
        ports = read_ports()
        if is_native() and not NATIVE_PYTHON.exists():
            raise CannotRun("The MCP SDK is not installed. This installs it: make run MCP=native")
        with only_run():
            for name, port in ports.items():
                check_free(name, port)
            asyncio.run(run(ports))
    except CannotRun as error:
        say(str(error))
        return 1
    finally:
        dismiss_guardian()
    return 0


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read our output may be gone; ending goes on
        print(text, flush=True)


def read_ports() -> dict[str, int]:
    ports = {}
    for name, default in {"PORT": "8001", "LLM_PORT": "8000", "MCP_PORT": "8011"}.items():
        text = os.environ.get(name) or default
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise CannotRun(f"{name} must be a port number from 1 to 65535, not {text!r}.")
        ports[name] = int(text)
    if len(set(ports.values())) < len(ports):
        raise CannotRun(f"{', '.join(ports)} must be three different ports.")
    return ports


@contextlib.contextmanager
def only_run() -> Iterator[None]:
    """Holds a lock as long as this run lives, however it ends, so that two runs never share the data."""
    try:
        FOLDER.mkdir(exist_ok=True)
        lock = (FOLDER / "lock").open("a")
    except OSError as error:
        raise CannotRun(f"The demo keeps its data in {FOLDER}, which cannot be written: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotRun("The demo is already running here. End that run first, with Ctrl-C.") from error
        yield


def check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotRun(
                f"Port {port} cannot be used ({error.strerror}). "
                f"End the program that has it, or take another: make run {name}={port + 100}"
            ) from error


async def run(ports: Mapping[str, int]) -> None:
    """Runs everything until Ctrl-C or SIGTERM, and ends it. Raises CannotRun if something does not go on."""
    place = databases.find_place(FOLDER)
    databases.end_leftover(place)
    children: list[Child] = []
    told_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)

    start = asyncio.create_task(start_everything(children, place, ports))
    end = asyncio.create_task(told_to_end.wait())
    loss = asyncio.create_task(wait_for_loss(children))
    try:
        await asyncio.wait({start, end, loss}, return_when=asyncio.FIRST_COMPLETED)
        if start.done() and not end.done():
            start.result()
            show_greeting(ports["PORT"])
            await asyncio.wait({end, loss}, return_when=asyncio.FIRST_COMPLETED)
        if loss.done() and not end.done():
            loss.result()
    finally:
        if end.done():
            say("Ending …")
        for task in (start, end, loss):
            task.cancel()
        await asyncio.gather(start, end, loss, return_exceptions=True)
        for child in reversed(children):  # what was started last needs the others while it ends
            await end_child(child)


async def start_everything(children: list[Child], place: Place, ports: Mapping[str, int]) -> None:
    if not databases.is_initialised(place):
        say("Making the databases, this first time …")
        await run_to_end(children, "initdb", databases.initdb_command(place), ENVIRONMENT, place.user)
        databases.finish_initdb(place)
    say("Starting …")
    command = place.server_command(databases.OPTIONS)
    await start_child(children, "postgresql", command, ENVIRONMENT, place.user, signal.SIGINT)
    try:
        await databases.wait_until_ready(place)
        await databases.fill_databases(place)
    except (OSError, asyncpg.PostgresError) as error:
        raise CannotRun(f"PostgreSQL cannot be used: {error or type(error).__name__}.") from error

    env = environment(place, ports)
    await start_child(children, "llm", stand_in("demo.llm_server:app", ports["LLM_PORT"]), env)
    mcp = stand_in("demo.mcp_server:app", ports["MCP_PORT"])
    if is_native():
        mcp = stand_in("demo.mcp_native:app", ports["MCP_PORT"], NATIVE_PYTHON)
    await start_child(children, "mcp", mcp, env)
    await start_child(children, "gateway", [sys.executable, "gateway.py"], env)
    await wait_until_answers("llm", ports["LLM_PORT"], "/health")
    await wait_until_answers("mcp", ports["MCP_PORT"], "/health")
    await wait_until_answers("gateway", ports["PORT"], "/api/health")
    await run_to_end(children, "personas", [sys.executable, "seed_personas.py"], env)


def environment(place: Place, ports: Mapping[str, int]) -> dict[str, str]:
    """For the gateway, the stand-ins and the seeding alike. What stands here goes before a `.env` file."""
    return {
        "LOG_LEVEL": "warning",
        "DRAIN_SECONDS": "2",
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(ports["PORT"]),
        "ENVIRONMENT": "development",
        "FRONTEND_HOST": "http://127.0.0.1:4173,http://localhost:4173",
        "LLMSERVER_URL": f"http://127.0.0.1:{ports['LLM_PORT']}",
        "MCP_SERVER_URL": f"http://127.0.0.1:{ports['MCP_PORT']}" + ("/mcp" if is_native() else ""),
        "MCP_PROTOCOL": "mcp" if is_native() else "rest",
        "GATEWAY_URL": f"http://127.0.0.1:{ports['PORT']}",
        "DATABASE_URL": databases.url(place, "chatdb"),
        "FAQ_DATABASE_URL": databases.url(place, "card_qna_db"),
        "LISTEN_DATABASE_URL": "",
        "PYTHONUNBUFFERED": "1",
    }


def is_native() -> bool:
    return os.environ.get("MCP") == "native"


def stand_in(app: str, port: int, python: Path = Path(sys.executable)) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    return [str(python), "-m", "uvicorn", app, *options, "--timeout-graceful-shutdown", "1"]


async def start_child(
    children: list[Child],
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    user: str | None = None,
    ending: signal.Signals = signal.SIGTERM,
    lasting: bool = True,
) -> Child:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if lasting else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT if lasting else asyncio.subprocess.PIPE,
        **apart(user),
    )
    guard(process.pid, ending)
    child = Child(name, process, ending, lasting, asyncio.create_task(show_output(name, process)))
    children.append(child)
    return child


async def show_output(name: str, process: asyncio.subprocess.Process) -> None:
    stream = process.stdout or process.stderr
    assert stream is not None
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line beyond the reader's limit, left out
            continue
        if not line:
            return
        say(f"{name:<10} | {line.decode('utf-8', 'replace').rstrip()}")


async def run_to_end(
    children: list[Child], name: str, command: Sequence[str], env: Mapping[str, str], user: str | None = None
) -> None:
    """Runs a process that does one thing; only its errors are shown. Raises CannotRun if it fails."""
    child = await start_child(children, name, command, env, user, lasting=False)
    status = await child.process.wait()
    children.remove(child)
    unguard(child.process.pid)
    await child.output
    if status:
        raise CannotRun(f"{name} failed (exit status {status}).")


async def wait_for_loss(children: list[Child]) -> None:
    """Raises CannotRun when a process has ended that should not have."""
    while True:
        await asyncio.sleep(0.2)
        for child in children:
            if child.lasting and child.process.returncode is not None:
                await child.output
                raise CannotRun(f"{child.name} has ended (exit status {child.process.returncode}).")


async def wait_until_answers(name: str, port: int, path: str) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(answers, port, path):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise CannotRun(f"{name} did not answer on port {port} within {READY_SECONDS} seconds.") from error


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def end_child(child: Child) -> None:
    """Tells the process to end, and kills it with all of its session's if it does not in time."""
    with contextlib.suppress(ProcessLookupError):
        child.process.send_signal(child.ending)
    try:
        await asyncio.wait_for(child.process.wait(), END_SECONDS)
    except TimeoutError:
        say(f"{child.name} does not end, and is killed.")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        await child.process.wait()
    unguard(child.process.pid)
    await child.output


def show_greeting(port: int) -> None:
    http_url, ws_url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
    say(GREETING.format(http=http_url, ws=ws_url, message_id=uuid.uuid4()))
