"""docker-scripts/ and .ci/run: their arguments, what they refuse, and what they have Docker do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.fake_docker import DIGEST
from tests.deployment.shell import SETTINGS, Shell, option
from tests.support.processes import ROOT

SCRIPTS = sorted((ROOT / "docker-scripts").glob("*.sh"))
COMMANDS = ["build.sh", "run.sh", "push.sh", "deploy.sh"]
HOSTS = ["ssh://deploy@host-1", "ssh://deploy@host-2", "ssh://deploy@host-3"]
DEPLOYMENT = SETTINGS | {
    "DEPLOY_HOSTS": "deploy@host-1 deploy@host-2 deploy@host-3",
    "HTTPX_TIMEOUT": "300",
    "ENVIRONMENT": "production",
    "IMAGE": "registry.example.com/team/card-chat-gateway",
    "REGISTRY_USR": "jenkins",
    "REGISTRY_PSW": "s3cret-of-registry",
    "READY_SECONDS": "0",
}


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
    assert "IMAGE" in result.output
    assert "set -e" not in result.output
    assert not shell.calls()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("build.sh", "VERSION is missing"),
        ("build.sh a/b", "not 'a/b'"),
        ("build.sh -x", "not '-x'"),
        ("run.sh", "dev, or deploy VERSION"),
        ("run.sh start", "no 'start'"),
        ("run.sh dev 1.0", "no further argument"),
        ("run.sh deploy", "one VERSION"),
        ("run.sh deploy 1.0 2.0", "one VERSION"),
        ("run.sh deploy sha256:12", "not 'sha256:12'"),
        ("push.sh", "VERSION is missing"),
        ("deploy.sh", "VERSION is missing"),
        ("deploy.sh 1.0", "DEPLOY_HOSTS is empty"),
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
    ],
)
def test_a_wrong_variable_is_named(shell: Shell, variables: dict[str, str], named: str) -> None:
    result = shell.run("docker-scripts/deploy.sh", "1.0", environment=DEPLOYMENT | variables)
    assert result.status != 0
    assert named in result.errors
    assert not shell.calls("run")


@pytest.mark.parametrize("command", ["build.sh 1.0", "run.sh dev", "run.sh deploy 1.0", "push.sh 1.0"])
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


def test_deploy_closes_the_container_and_passes_no_setting_on_its_command_line(shell: Shell) -> None:
    shell.write_env(SETTINGS | {"DRAIN_SECONDS": "40.5"})
    result = shell.run("docker-scripts/run.sh", "deploy", "1.0")
    assert result.status == 0, result.errors
    (run,) = shell.calls("run")
    assert {"--detach", "--init", "--read-only"} <= set(run.arguments)
    assert option(run.arguments, "--restart") == ["unless-stopped"]
    assert option(run.arguments, "--cap-drop") == ["ALL"]
    assert option(run.arguments, "--security-opt") == ["no-new-privileges"]
    assert option(run.arguments, "--memory") == ["1g"]
    assert int(option(run.arguments, "--stop-timeout")[0]) > 40
    assert option(run.arguments, "--publish") == ["8001:8001"]
    assert "s3cret" not in run.command
    assert shell.calls("exec")[-1].arguments[2:] == ["python", "healthcheck.py", "ready"]


def test_deploy_has_time_to_drain_by_default(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    assert shell.run("docker-scripts/run.sh", "deploy", "1.0").status == 0
    (run,) = shell.calls("run")
    assert int(option(run.arguments, "--stop-timeout")[0]) > 25


def test_deploy_replaces_what_runs(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0", "card-chat-gateway-previous": "left over"})
    result = shell.run("docker-scripts/run.sh", "deploy", DIGEST)
    assert result.status == 0, result.errors
    assert shell.containers() == {"card-chat-gateway": f"card-chat-gateway@{DIGEST}"}
    order = [call.arguments[0] for call in shell.calls() if call.arguments[0] in ("pull", "stop", "run")]
    assert order == ["pull", "stop", "run"]


def test_deploy_goes_back_when_the_new_version_does_not_come_up(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0"})
    environment = {"FAKE_DOCKER_FAILS": "exec@", "READY_SECONDS": "0"}
    result = shell.run("docker-scripts/run.sh", "deploy", "1.1", environment=environment)
    assert result.status == 1
    assert "card-chat-gateway:1.1 was not ready within 0 s" in result.errors
    assert shell.containers() == {"card-chat-gateway": "card-chat-gateway:1.0"}
    assert shell.calls("start")


@pytest.mark.parametrize("failing", ["run@", "exec@"])
def test_a_first_deploy_that_does_not_come_up_leaves_nothing(shell: Shell, failing: str) -> None:
    shell.write_env(SETTINGS)
    environment = {"FAKE_DOCKER_FAILS": failing, "READY_SECONDS": "0"}
    result = shell.run("docker-scripts/run.sh", "deploy", "1.1", environment=environment)
    assert result.status == 1
    assert shell.containers() == {}


def test_an_image_that_cannot_be_had_changes_nothing(shell: Shell) -> None:
    shell.write_env(SETTINGS)
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0"})
    result = shell.run("docker-scripts/run.sh", "deploy", "1.1", environment={"FAKE_DOCKER_FAILS": "pull@"})
    assert result.status == 1
    assert "nothing was changed" in result.errors
    assert not shell.calls("stop")


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


def test_deploy_goes_from_host_to_host(shell: Shell) -> None:
    result = shell.run("docker-scripts/deploy.sh", DIGEST, environment=DEPLOYMENT)
    assert result.status == 0, result.errors
    runs = shell.calls("run")
    assert [run.host for run in runs] == HOSTS
    waits = [(call.host, call.arguments[0]) for call in shell.calls() if call.arguments[0] in ("run", "exec")]
    assert waits == [(host, step) for host in HOSTS for step in ("run", "exec")]
    for run in runs:
        assert run.arguments[-1] == f"{DEPLOYMENT['IMAGE']}@{DIGEST}"
        for name in [*SETTINGS, "HTTPX_TIMEOUT", "ENVIRONMENT"]:
            assert f"{name}={DEPLOYMENT[name]}\n" in run.more["env_file_text"]
        assert run.more["env_file_mode"] == "600"
        assert not Path(run.more["env_file"]).parent.exists()
    assert not any("s3cret" in call.command for call in shell.calls())
    assert "s3cret" not in result.output + result.errors


def test_deploy_stops_at_the_first_host_that_does_not_come_up(shell: Shell) -> None:
    environment = DEPLOYMENT | {"FAKE_DOCKER_FAILS": f"exec@{HOSTS[1]}"}
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=environment)
    assert result.status == 1
    assert "deploy@host-2 did not come up" in result.errors
    assert [run.host for run in shell.calls("run")] == HOSTS[:2]
    assert not Path(shell.calls("run")[0].more["env_file"]).parent.exists()


@pytest.mark.parametrize("name", [*SETTINGS, "HTTPX_TIMEOUT", "ENVIRONMENT"])
def test_deploy_names_a_setting_that_is_missing(shell: Shell, name: str) -> None:
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=DEPLOYMENT | {name: ""})
    assert result.status == 1
    assert f"The environment lacks: {name}." in result.errors
    assert not shell.calls("run")


def test_deploy_refuses_a_setting_of_two_lines(shell: Shell) -> None:
    environment = DEPLOYMENT | {"LLMSERVER_URL": "http://127.0.0.1:1\nDATABASE_URL=x"}
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=environment)
    assert result.status == 1
    assert "LLMSERVER_URL must be one line" in result.errors


def test_deploy_passes_further_settings_and_tells_the_balancer(shell: Shell) -> None:
    shell.add_program("balancer", f'echo "$1 $2" >> {shell.folder}/balancer')
    environment = DEPLOYMENT | {"BALANCER": "balancer", "MORE_SETTINGS": "DRAIN_SECONDS=60\nDB_POOL_SIZE=12"}
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=environment)
    assert result.status == 0, result.errors
    run = shell.calls("run")[0]
    assert run.more["env_file_text"].endswith("DRAIN_SECONDS=60\nDB_POOL_SIZE=12\n")
    assert int(option(run.arguments, "--stop-timeout")[0]) > 60
    told = (shell.folder / "balancer").read_text().splitlines()
    assert told == [f"{what} deploy@host-{n}" for n in (1, 2, 3) for what in ("remove", "add")]


def test_ci_runs_the_same_targets_and_stops_at_the_first_failure(shell: Shell) -> None:
    shutil.copytree(ROOT / ".ci", shell.folder / ".ci")
    log = shell.folder / "log"
    shell.add_program("apt-get", "exit 0")
    shell.add_program("make", f'echo "$1 $CI" >> {log}; [ "$1" != "$FAILS" ]')
    assert shell.run(".ci/run").status == 0
    assert log.read_text().splitlines() == ["check true", "test true"]
    log.unlink()
    assert shell.run(".ci/run", environment={"FAILS": "check"}).status != 0
    assert log.read_text().splitlines() == ["check true"]
    log.unlink()
    assert shell.run(".ci/run", environment={"FAILS": "test"}).status != 0
    assert log.read_text().splitlines() == ["check true", "test true"], "a test that fails has failed"
