"""The Jenkinsfile: well-formed, complete, and its shell steps run with stand-ins for Docker and make."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deployment.fake_docker import DIGEST
from tests.deployment.shell import SETTINGS, Shell
from tests.support.processes import ROOT

TEXT = (ROOT / "Jenkinsfile").read_text()
STAGES = ["Check", "Test", "Build", "Release", "Push", "Deploy"]


def without_texts(text: str) -> str:
    """Groovy without its comments and strings."""
    return re.sub(r"'(?:\\.|[^'\\\n])*'|//[^\n]*", "''", text)


def stage(name: str) -> str:
    """The text of a stage, up to the next one."""
    return TEXT.split(f"stage('{name}')")[1].split("stage('")[0]


def steps(name: str) -> list[str]:
    """The shell steps of a stage."""
    return re.findall(r"^\s*sh '(.*)'$", stage(name), re.MULTILINE)


def test_braces_are_balanced() -> None:
    opened: list[str] = []
    for character in without_texts(TEXT):
        if character in "([{":
            opened.append(character)
        elif character in ")]}":
            assert opened, "closed more than opened"
            assert opened.pop() + character in ("()", "[]", "{}")
    assert not opened


def test_commas_stand_between_arguments() -> None:
    assert not re.search(r"''\s+\w+:", without_texts(TEXT))


def test_stages_come_in_order() -> None:
    assert re.findall(r"stage\('(\w+)'\)", TEXT) == STAGES


def test_it_is_declarative_without_scripts() -> None:
    assert re.search(r"^pipeline \{", TEXT, re.MULTILINE)
    assert not re.search(r"\b(node|script)\s*[({]", without_texts(TEXT))


def test_no_step_lets_groovy_fill_in_a_value() -> None:
    """Groovy strings would put secrets on a command line; the shell reads its environment."""
    assert '"' not in without_texts(TEXT)


def test_deploy_passes_every_required_setting() -> None:
    for name in SETTINGS:
        credential = f"gateway-{name.lower().replace('_', '-')}"
        assert re.search(rf"^\s*{name} = credentials\('{credential}'\)$", stage("Deploy"), re.MULTILINE)
    for name in ("HTTPX_TIMEOUT", "ENVIRONMENT"):
        assert re.search(rf"^\s*{name} = '\w+'$", stage("Deploy"), re.MULTILINE)


def test_secrets_are_bound_only_where_they_are_used() -> None:
    assert set(re.findall(r"(\w+) = credentials", TEXT.split("stage('Release')")[0])) == set()
    assert re.findall(r"(\w+) = credentials", stage("Release")) == ["REGISTRY"]


def test_it_runs_the_same_targets_as_everybody() -> None:
    assert steps("Check") == ["make check"]
    assert steps("Test") == ["make test"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"check", "test"} <= set(targets)


@pytest.mark.parametrize("origin", ["there", "away"])
def test_the_version_is_a_tag_that_docker_takes(tmp_path: Path, origin: str) -> None:
    """The newest one, though the checkout came without tags; or the commit, if its origin does not answer."""
    command = re.search(r"VERSION = sh\(script: '(.*?)', returnStdout: true\)", TEXT)
    assert command

    def git(folder: str, *arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", "-C", str(tmp_path / folder), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "origin").mkdir()
    git("origin", "init")
    git("origin", "commit", "--allow-empty", "--message=x")
    git("origin", "tag", "--annotate", "v1.2.0", "--message=x")
    git("origin", "commit", "--allow-empty", "--message=y")
    git(".", "clone", "--no-tags", "origin", "checkout")
    if origin == "away":
        (tmp_path / "origin").rename(tmp_path / "elsewhere")
    done = subprocess.run(
        ["sh", "-xec", command[1]], cwd=tmp_path / "checkout", capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", done.stdout.strip())
    assert done.stdout.startswith("v1.2.0-1-g") == (origin == "there")


def test_images_are_removed_whatever_happens(tmp_path: Path) -> None:
    """Those of the gateway that no container uses; a failure of that fails nothing."""
    (step,) = re.findall(r"^    post \{\n        always \{.*?sh '(.*?)'$", TEXT, re.MULTILINE | re.DOTALL)
    shell = Shell(tmp_path)
    assert shell.run("sh", "-xe", "-c", step, environment={"FAKE_DOCKER_FAILS": "image@"}).status == 0
    (prune,) = shell.calls("image", "prune")
    title = re.search(r"org\.opencontainers\.image\.title=\"([\w-]+)\"", (ROOT / "Dockerfile").read_text())
    assert title
    assert f"label=org.opencontainers.image.title={title[1]}" in prune.arguments


def test_its_shell_steps_lead_from_source_to_hosts(tmp_path: Path) -> None:
    """Every step as Jenkins runs it (`sh -xe`), with its environment; no secret shows anywhere."""
    shell = Shell(tmp_path)
    shell.add_program("make", "exit 0")
    everywhere = {
        "VERSION": "v1.2.0-3-gabcdef012345",
        "IMAGE": "registry.example.com/team/card-chat-gateway",
        "DEPLOY_HOSTS": "deploy@host-1 deploy@host-2",
        "BALANCER": "",
        "MORE_SETTINGS": "",
    }
    release = {"REGISTRY": "jenkins:s3cret", "REGISTRY_USR": "jenkins", "REGISTRY_PSW": "s3cret"}
    bound = {"Push": release, "Deploy": release | SETTINGS | {"HTTPX_TIMEOUT": "300", "ENVIRONMENT": "production"}}
    for name in STAGES:
        for step in steps(name):
            result = shell.run("sh", "-xe", "-c", step, environment=everywhere | bound.get(name, {}))
            assert result.status == 0, f"{step}\n{result.errors}"
            assert "s3cret" not in result.output + result.errors
    assert (shell.folder / "build" / "digest").read_text() == f"{DIGEST}\n"
    assert [run.host for run in shell.calls("run")] == ["ssh://deploy@host-1", "ssh://deploy@host-2"]
    assert all(run.arguments[-1] == f"{everywhere['IMAGE']}@{DIGEST}" for run in shell.calls("run"))
    assert not any("s3cret" in call.command for call in shell.calls())


def test_what_it_archives_is_what_it_writes() -> None:
    assert "> build/digest" in steps("Push")[0]
    assert "archiveArtifacts artifacts: 'build/digest'" in stage("Push")
    results = re.search(r"--junitxml=(\S+?)'", TEXT)
    assert results
    assert f"testResults: '{results[1]}'" in stage("Test")
