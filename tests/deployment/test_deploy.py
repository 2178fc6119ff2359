"""docker-scripts/run.sh, deploy.sh and rollback.sh: one version in place of another, and never none."""

from pathlib import Path

import pytest

from tests.deployment.fake_docker import DIGEST
from tests.deployment.shell import DEPLOYMENT, SETTINGS, Shell, option

HOSTS = ["ssh://deploy@host-1", "ssh://deploy@host-2", "ssh://deploy@host-3"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


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
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0", "card-chat-gateway-previous": "(left over)"})
    result = shell.run("docker-scripts/run.sh", "deploy", DIGEST)
    assert result.status == 0, result.errors
    assert shell.containers() == {
        "card-chat-gateway": f"card-chat-gateway@{DIGEST}",
        "card-chat-gateway-previous": "(card-chat-gateway:1.0)",
    }
    steps = ("pull", "stop", "run", "image prune")
    order = [step for call in shell.calls() for step in steps if call.command.startswith(step)]
    assert order == list(steps), "images that no container uses are removed at the end"


@pytest.mark.parametrize("failing", ["stop@", "run@", "exec@"])
def test_deploy_goes_back_when_the_new_version_does_not_come_up(shell: Shell, failing: str) -> None:
    shell.write_env(SETTINGS)
    before = {"card-chat-gateway": "card-chat-gateway:1.0", "card-chat-gateway-previous": "(card-chat-gateway:0.9)"}
    shell.start_with(before)
    environment = {"FAKE_DOCKER_FAILS": failing, "READY_SECONDS": "0"}
    result = shell.run("docker-scripts/run.sh", "deploy", "1.1", environment=environment)
    assert result.status == 1
    if failing != "stop@":
        assert "card-chat-gateway:1.1 did not start, or was not ready within 0 s" in result.errors
    assert "has been started again" in result.errors
    assert shell.containers() == before


STEPS = ["pull@", "container@", "rename@", "stop@", "run@", "exec@"]


@pytest.mark.parametrize("step", STEPS)
def test_a_deploy_that_is_aborted_leaves_the_old_or_the_new_one_running(shell: Shell, step: str) -> None:
    """At each step, the way Jenkins does it: everything that runs is told to end."""
    shell.write_env(SETTINGS)
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0"})
    result = shell.run("docker-scripts/run.sh", "deploy", "1.1", environment={"FAKE_DOCKER_ABORTS": step})
    assert result.status != 0
    assert shell.containers() == {"card-chat-gateway": "card-chat-gateway:1.0"}, "and nobody holds the engine"


def test_a_deploy_after_one_that_was_killed_starts_from_what_ran_before(shell: Shell) -> None:
    """kill -9 leaves no time to go back: the container that was never ready is not kept as if it had been."""
    shell.write_env(SETTINGS)
    shell.start_with(
        {"card-chat-gateway": "card-chat-gateway:1.1", "card-chat-gateway-replaced": "(card-chat-gateway:1.0)"}
    )
    assert shell.run("docker-scripts/run.sh", "deploy", "1.2").status == 0
    assert shell.containers() == {
        "card-chat-gateway": "card-chat-gateway:1.2",
        "card-chat-gateway-previous": "(card-chat-gateway:1.0)",
    }


def test_rollback_goes_back_and_forth(shell: Shell) -> None:
    """No image and no setting is needed for it."""
    old, new = "card-chat-gateway:1.0", "card-chat-gateway:1.1"
    shell.start_with({"card-chat-gateway": new, "card-chat-gateway-previous": f"({old})"})
    for now, then in ((old, new), (new, old)):
        result = shell.run("docker-scripts/run.sh", "rollback")
        assert result.status == 0, result.errors
        assert shell.containers() == {"card-chat-gateway": now, "card-chat-gateway-previous": f"({then})"}


def test_rollback_without_anything_to_go_back_to_changes_nothing(shell: Shell) -> None:
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.0"})
    result = shell.run("docker-scripts/run.sh", "rollback")
    assert (result.status, result.output) == (1, "")
    assert "nothing to go back to" in result.errors
    assert shell.containers() == {"card-chat-gateway": "card-chat-gateway:1.0"}


def test_a_rollback_that_does_not_come_up_leaves_what_runs(shell: Shell) -> None:
    shell.start_with({"card-chat-gateway": "card-chat-gateway:1.1", "card-chat-gateway-previous": "(broken:1.0)"})
    environment = {"FAKE_DOCKER_FAILS": "exec@", "READY_SECONDS": "0"}
    result = shell.run("docker-scripts/run.sh", "rollback", environment=environment)
    assert result.status == 1
    assert shell.containers()["card-chat-gateway"] == "card-chat-gateway:1.1"


@pytest.mark.parametrize("command", ["run.sh deploy 1.1", "run.sh rollback"])
def test_a_host_that_is_being_deployed_to_is_left_alone(shell: Shell, command: str) -> None:
    shell.write_env(SETTINGS)
    before = {
        "card-chat-gateway": "card-chat-gateway:1.1",
        "card-chat-gateway-previous": "(card-chat-gateway:1.0)",
        "card-chat-gateway-lock": "(card-chat-gateway:1.2)",
    }
    shell.start_with(before, owner="another")
    name, *arguments = command.split()
    result = shell.run(f"docker-scripts/{name}", *arguments)
    assert result.status == 1
    assert "another is deploying. If it was killed, 'docker rm card-chat-gateway-lock' there." in result.errors
    assert shell.containers() == before


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


def test_deploy_stops_at_the_first_host_that_does_not_come_up_and_says_how_to_go_back(shell: Shell) -> None:
    shell.add_program("balancer", f'echo "$1 $2" >> {shell.folder}/balancer')
    for host in HOSTS:
        shell.start_with({"card-chat-gateway": "old"}, host)
    environment = DEPLOYMENT | {"FAKE_DOCKER_FAILS": f"exec@{HOSTS[1]}", "BALANCER": "balancer"}
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=environment)
    assert result.status == 1
    assert "deploy@host-2 did not come up" in result.errors
    assert [run.host for run in shell.calls("run")] == HOSTS[:2]
    assert not Path(shell.calls("run")[0].more["env_file"]).parent.exists()
    told = (shell.folder / "balancer").read_text().splitlines()
    assert told == [f"{what} deploy@host-{n}" for n in (1, 2) for what in ("remove", "add")]
    (said,) = [line for line in result.errors.splitlines() if "rollback.sh" in line]
    back = shell.run("sh", "-c", said, environment={"BALANCER": "balancer"})
    assert back.status == 0, back.errors
    assert [shell.containers(host)["card-chat-gateway"] for host in HOSTS] == ["old"] * 3
    assert not any("card-chat-gateway-lock" in shell.containers(host) for host in HOSTS)


@pytest.mark.parametrize("failing", ["version@", "pull@"])
def test_deploy_changes_nothing_before_every_host_can_be_deployed_to(shell: Shell, failing: str) -> None:
    """One that is not reachable, or cannot have the image, is found before the first host is touched."""
    environment = DEPLOYMENT | {"FAKE_DOCKER_FAILS": f"{failing}{HOSTS[2]}"}
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=environment)
    assert result.status == 1
    assert "host-3" in result.errors
    assert not shell.calls("run")
    assert [shell.containers(host) for host in HOSTS] == [{}] * 3


def test_two_deploys_to_the_same_hosts_never_run_at_once(shell: Shell) -> None:
    """Whatever started them: the engine says who came first, and the other one gives its hosts back."""
    shell.start_with({"card-chat-gateway-lock": "(x)"}, HOSTS[1], owner="jenkins-main-7")
    result = shell.run("docker-scripts/deploy.sh", "1.1", environment=DEPLOYMENT)
    assert result.status == 1
    assert f"jenkins-main-7 is deploying at {HOSTS[1]}" in result.errors
    assert not shell.calls("run")
    assert [set(shell.containers(host)) for host in HOSTS] == [set(), {"card-chat-gateway-lock"}, set()]


@pytest.mark.parametrize("step", [*STEPS, "start@"])
def test_an_aborted_deploy_gives_back_what_it_holds(shell: Shell, step: str) -> None:
    """On the second host: it runs what it ran before, it is back in the balancer, and nobody holds any engine."""
    shell.add_program("balancer", f'echo "$1 $2" >> {shell.folder}/balancer')
    for host in HOSTS:
        shell.start_with({"card-chat-gateway": "old"}, host)
    environment = DEPLOYMENT | {"FAKE_DOCKER_ABORTS": f"{step}{HOSTS[1]}", "BALANCER": "balancer"}
    if step == "start@":
        environment["FAKE_DOCKER_FAILS"] = f"exec@{HOSTS[1]}"
    assert shell.run("docker-scripts/deploy.sh", "1.1", environment=environment).status != 0
    assert shell.containers(HOSTS[1]) == {"card-chat-gateway": "old"}
    assert not any("card-chat-gateway-lock" in shell.containers(host) for host in HOSTS)
    told = (shell.folder / "balancer").read_text().split() if (shell.folder / "balancer").exists() else []
    assert told.count("remove") == told.count("add")


def test_rollback_changes_nothing_before_every_host_can_go_back(shell: Shell) -> None:
    both = {"card-chat-gateway": "new", "card-chat-gateway-previous": "(old)"}
    shell.start_with(both, HOSTS[0])
    shell.start_with({"card-chat-gateway": "new"}, HOSTS[1])
    environment = {"DEPLOY_HOSTS": "deploy@host-1 deploy@host-2"}
    result = shell.run("docker-scripts/rollback.sh", environment=environment)
    assert result.status == 1
    assert "deploy@host-2 has no card-chat-gateway-previous to go back to; nothing was changed." in result.errors
    assert shell.containers(HOSTS[0]) == both


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
