"""docker-scripts/ and .ci/run: their arguments, what they refuse, and what they have Docker do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.fake_docker import DIGEST
from tests.deployment.shell import DEPLOYMENT, SETTINGS, Shell, option
from tests.support.processes import ROOT

SCRIPTS = sorted((ROOT / "docker-scripts").glob("*.sh"))
COMMANDS = ["build.sh", "run.sh", "push.sh", "deploy.sh", "rollback.sh"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def program(name: str) -> str:
    """A program of the virtual environment, or of the machine."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def test_shellcheck_finds_nothing() -> None:
    files = [str(file.relative_to(ROOT)) for file in [*SCRIPTS, ROOT / ".ci" / "run"]]
    done = subprocess.run(
        [program("shellcheck"), "--external-sources", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", [*COMMANDS, "init-databases.sh", "../.ci/run"])
def test_scripts_are_executable(file: str) -> None:
    assert (ROOT / "docker-scripts" / file).stat().st_mode & 0o111


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_says_how_to_call_it_and_touches_nothing(shell: Shell, script: str, flag: str) -> None:
    result = shell.run(f"docker-scripts/{script}", flag)
    assert result.status == 0
    assert f"docker-scripts/{script}" in result.output
    assert "Environment:" in result.output or "environment:" in result.output
    assert "set -e" not in result.output
    assert not shell.calls()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("build.sh", "VERSION is missing"),
        ("build.sh a/b", "not 'a/b'"),
        ("build.sh -x", "not '-x'"),
        ("run.sh", "dev, deploy VERSION, or rollback"),
        ("run.sh start", "no 'start'"),
        ("run.sh dev 1.0", "no further argument"),
        ("run.sh deploy", "one VERSION"),
        ("run.sh deploy 1.0 2.0", "one VERSION"),
        ("run.sh deploy sha256:12", "not 'sha256:12'"),
        ("push.sh", "VERSION is missing"),
        ("deploy.sh", "VERSION is missing"),
        ("deploy.sh 1.0", "DEPLOY_HOSTS is empty"),
        ("run.sh rollback 1.0", "no further argument"),
        ("rollback.sh", "DEPLOY_HOSTS is empty"),
        ("rollback.sh 1.0", "no argument"),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence(shell: Shell, command: str, named: str) -> None:
    shell.write_env(SETTINGS)
    name, *arguments = command.split()
    result = shell.run(f"docker-scripts/{name}", *arguments)
    assert result.status == 2
    assert result.output == ""
    assert result.errors.count("\n") == 1
    assert named in result.errors
    assert not shell.calls()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"IMAGE": "name:tag"}, "not 'name:tag'"),
        ({"IMAGE": "Upper"}, "not 'Upper'"),
        ({"DEPLOY_HOSTS": "host-1 -oProxyCommand=x"}, "not '-oProxyCommand=x'"),
        ({"READY_SECONDS": "soon"}, "READY_SECONDS"),
        ({"PUBLISH": "http"}, "not 'http'"),
        ({"PUBLISH": "127.0.0.1:8001:8001"}, "PUBLISH must be a port"),
        ({"REGISTRY_PSW": ""}, "REGISTRY_PSW is missing"),
        ({"IMAGE": "team/card-chat-gateway"}, "IMAGE must begin with the registry"),
    ],
)
def test_a_wrong_variable_is_named(shell: Shell, variables: dict[str, str], named: str) -> None:
    result = shell.run("docker-scripts/deploy.sh", "1.0", environment=DEPLOYMENT | variables)
    assert result.status != 0
    assert named in result.errors
    assert not shell.calls("run")


@pytest.mark.parametrize(
    "command", ["build.sh 1.0", "run.sh dev", "run.sh deploy 1.0", "run.sh rollback", "push.sh 1.0"]
)
def test_without_docker_they_say_so(tmp_path: Path, command: str) -> None:
    shell = Shell(tmp_path, docker=False)
    shell.write_env(SETTINGS)
    name, *arguments = command.split()
    result = shell.run(f"docker-scripts/{name}", *arguments)
    assert (result.status, result.errors) == (1, f"{name}: The docker command is needed, and is not in PATH.\n")


def test_an_engine_that_is_down_is_named(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    environment = {"FAKE_DOCKER_FAILS": "version@ssh://a-host", "DOCKER_HOST": "ssh://a-host"}
    result = shell.run("docker-scripts/run.sh", "deploy", "1.0", environment=environment)
    assert result.status == 1
    assert "The Docker engine does not answer at ssh://a-host" in result.errors
    assert len(shell.calls()) == 1


def test_build_tags_and_labels_the_version(shell: Shell) -> None:
    result = shell.run(
        "docker-scripts/build.sh", "1.2.0", "--pull", environment={"IMAGE": "registry.local:5000/gateway"}
    )
    assert result.status == 0, result.errors
    (build,) = shell.calls("build")
    assert option(build.arguments, "--tag") == ["registry.local:5000/gateway:1.2.0"]
    assert "VERSION=1.2.0" in option(build.arguments, "--build-arg")
    assert "--pull" in build.arguments
    assert build.arguments[-1] == str(shell.folder)


@pytest.mark.parametrize("mode", ["dev", "deploy 1.0"])
def test_run_without_env_file_starts_nothing(shell: Shell, mode: str) -> None:
    result = shell.run("docker-scripts/run.sh", *mode.split())
    assert result.status == 1
    assert ".env does not exist" in result.errors
    assert {call.arguments[0] for call in shell.calls()} == {"version"}


@pytest.mark.parametrize("mode", ["dev", "deploy 1.0"])
def test_run_names_every_missing_setting_before_anything_is_started(shell: Shell, mode: str) -> None:
    shell.write_env(SETTINGS | {"MCP_SERVER_URL": " ", "#FRONTEND_HOST": "x", "FRONTEND_HOST": ""})
    result = shell.run("docker-scripts/run.sh", *mode.split())
    assert result.status == 1
    assert "lacks the required settings: FRONTEND_HOST MCP_SERVER_URL." in result.errors
    assert {call.arguments[0] for call in shell.calls()} == {"version"}


def test_env_example_passes_the_check(shell: Shell) -> None:
    shutil.copy(ROOT / ".env.example", shell.folder / ".env")
    assert shell.run("docker-scripts/run.sh", "deploy", "1.0").status == 0


@pytest.mark.parametrize("line", ['DATABASE_URL="postgresql://x@y/z"', "export DATABASE_URL=postgresql://x@y/z"])
def test_run_refuses_what_docker_reads_differently(shell: Shell, line: str) -> None:
    file = shell.write_env(SETTINGS)
    file.write_text(file.read_text() + line + "\n")
    result = shell.run("docker-scripts/run.sh", "deploy", "1.0")
    assert result.status == 1
    assert "export" in result.errors
    assert "DATABASE_URL" in result.errors
    assert not shell.calls("run")


def test_dev_runs_the_source_of_this_directory(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    result = shell.run("docker-scripts/run.sh", "dev")
    assert result.status == 0, result.errors
    (run,) = shell.calls("run")
    assert option(run.arguments, "--volume") == [f"{shell.folder}:/app:ro"]
    assert "ENVIRONMENT=development" in option(run.arguments, "--env")
    assert option(run.arguments, "--env-file") == [str(shell.folder / ".env")]
    assert shell.calls("build")


def test_push_prints_the_digest_and_nothing_else(shell: Shell) -> None:
    result = shell.run("docker-scripts/push.sh", "1.2.0", environment=DEPLOYMENT)
    assert (result.status, result.output) == (0, f"{DIGEST}\n"), result.errors
    (login,) = shell.calls("login")
    assert login.more["stdin"] == "s3cret-of-registry"
    assert "--password-stdin" in login.arguments
    assert login.arguments[-1] == "registry.example.com"
    assert not any("s3cret" in call.command for call in shell.calls())


def test_push_without_credentials_uses_dockers_own_login(shell: Shell) -> None:
    result = shell.run("docker-scripts/push.sh", "1.2.0")
    assert result.status == 0, result.errors
    assert not shell.calls("login")


def test_ci_runs_the_same_targets_and_stops_at_the_first_failure(shell: Shell) -> None:
    shutil.copytree(ROOT / ".ci", shell.folder / ".ci")
    log = shell.folder / "log"
    shell.add_program("apt-get", "exit 0")
    shell.add_program("make", f'echo "$1 $CI" >> {log}; [ "$1" != "$FAILS" ]')
    assert shell.run(".ci/run").status == 0
    assert log.read_text().splitlines() == ["check true", "soak true", "test true", "delivery true"]
    log.unlink()
    assert shell.run(".ci/run", environment={"FAILS": "check"}).status != 0
    assert log.read_text().splitlines() == ["check true"]
    log.unlink()
    assert shell.run(".ci/run", environment={"FAILS": "test"}).status != 0
    assert log.read_text().splitlines() == ["check true", "soak true", "test true"], "a test that fails has failed"
