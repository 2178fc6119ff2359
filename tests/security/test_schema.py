"""What /openapi.json promises is what comes: schemathesis tries, in `make fuzz` only, since it takes a minute."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.security import measured
from tests.support.gateway import Gateway, environment
from tests.support.processes import ROOT
from tests.support.world import NewGateway, NewWorld, add_personas

PROGRAM = ROOT / ".venv-fuzz" / "bin" / "schemathesis"
EXAMPLES = "60"  # for each operation and phase

pytestmark = [pytest.mark.skipif(os.environ.get("FUZZ") != "long", reason="make fuzz"), pytest.mark.timeout(900)]


@pytest.fixture
def gateway(new_world: NewWorld, new_gateway: NewGateway) -> Gateway:
    world = new_world()
    gateway = new_gateway(world, start="python")
    add_personas(world.chatdb, "김하늘", "이바다")
    return gateway


def test_schemathesis_finds_nothing(gateway: Gateway, tmp_path: Path) -> None:
    assert PROGRAM.exists(), "schemathesis is not installed: make fuzz does it"
    command = [str(PROGRAM), "run", f"{gateway.base_url}/openapi.json", "--no-color"]
    command += ["--checks", "all", "--max-examples", EXAMPLES, "--warnings", "off"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment({}), capture_output=True, text=True, timeout=800, check=False
    )
    said = [line.strip(" .!") for line in done.stdout.splitlines() if "generated" in line or "issues" in line]
    print("\n" + "\n".join(said))
    measured.record("schemathesis", "; ".join(said))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in gateway.output()
