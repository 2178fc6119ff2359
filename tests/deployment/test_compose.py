"""compose.yaml and the files it mounts; every YAML and JSON file of the repository parses."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.postgres import installation
from settings import Settings
from tests.deployment.shell import SETTINGS
from tests.support.postgres import Database, PostgresServer
from tests.support.processes import ROOT

GATEWAYS = ["gateway-1", "gateway-2"]


def load_yaml(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text("utf-8"))


def files(*suffixes: str) -> Iterator[Path]:
    """The repository's files of these kinds, those of tools and of this machine left out."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder) / name for name in names if name.endswith(suffixes))


@pytest.fixture(scope="module")
def compose() -> Any:
    return load_yaml(ROOT / "compose.yaml")


def test_every_yaml_file_parses() -> None:
    found = list(files(".yaml", ".yml"))
    assert ROOT / "compose.yaml" in found
    for file in found:
        assert load_yaml(file) is not None, file


def test_every_json_file_parses() -> None:
    found = list(files(".json"))
    assert ROOT / "data" / "personas.json" in found
    for file in found:
        json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("name", GATEWAYS)
def test_gateways_have_every_required_setting(compose: Any, name: str) -> None:
    environment = compose["services"][name]["environment"]
    assert set(SETTINGS) <= set(environment)
    known = {spec.upper() for spec in Settings.__dataclass_fields__}
    assert set(environment) <= known


@pytest.mark.parametrize("name", GATEWAYS)
def test_gateways_are_closed_watched_and_given_time(compose: Any, name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"][-2:] == ["healthcheck.py", "ready"]
    assert service["stop_grace_period"] == f"{service['environment']['STOP_GRACE_SECONDS']}s"
    assert int(service["environment"]["STOP_GRACE_SECONDS"]) > Settings.drain_seconds
    assert service["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_nothing_is_open_to_other_machines(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_is_there(compose: Any) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    folders = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(folders) == 5
    assert all((ROOT / folder).exists() for folder in folders)
    assert {mount.split(":")[0] for mount in mounts if not mount.startswith("./")} == set(compose["volumes"])


def test_services_call_each_other_by_names_that_exist(compose: Any) -> None:
    services = compose["services"]
    values = [str(value) for service in services.values() for value in service.get("environment", {}).values()]
    hosts = {host for value in values for host in re.findall(r"://(?:\w+@)?([\w-]+)[:/]", value + "/")}
    assert hosts - {"localhost", "127"} <= set(services)
    assert {"llm", "mcp", "postgres", "proxy"} <= hosts


def test_the_stand_ins_are_programs_of_the_demo(compose: Any) -> None:
    for name in ("llm", "mcp"):
        module = compose["services"][name]["command"][3].split(":")[0]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()


def test_the_proxy_knows_the_gateways(compose: Any) -> None:
    text = (ROOT / "docker-scripts" / "nginx.conf").read_text()
    assert re.findall(r"server ([\w-]+):8001 ", text) == GATEWAYS
    port = re.search(r"listen (\d+);", text)
    assert port
    assert compose["services"]["proxy"]["ports"] == [f"127.0.0.1:{port[1]}:{port[1]}"]


def test_the_databases_are_made_and_filled(postgres: PostgresServer) -> None:
    """The PostgreSQL container's script, run against this run's PostgreSQL with its own psql."""
    environment = {
        "PATH": f"{installation() / 'bin'}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "POSTGRES_USER": "postgres",
        "DEMO": str(ROOT / "demo"),
    }
    databases = [Database(postgres, name) for name in ("chatdb", "card_qna_db")]
    try:
        script = str(ROOT / "docker-scripts" / "init-databases.sh")
        done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        chatdb, card_qna_db = databases
        assert chatdb.value("SELECT 1") == 1
        for table in ("faqs", "terms"):
            rows = json.loads((ROOT / "demo" / "data" / f"{table}.json").read_text())
            assert card_qna_db.value(f"SELECT count(*) FROM {table}") == len(rows)
    finally:
        for database in databases:
            database.drop()
