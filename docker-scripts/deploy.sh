#!/usr/bin/env bash
# Deploys a pushed image to one host after the other, and stops at the first that does not come up. What ran before is
# kept on each host: rollback.sh goes back to it.
#
#   docker-scripts/deploy.sh VERSION        VERSION: a tag, or the digest that push.sh printed
#
# Each host's Docker engine is reached over ssh with the caller's agent and known_hosts; nothing is stored there but
# the container. Environment:
#
#   DEPLOY_HOSTS                       user@host, separated by spaces, in the order of the restart
#   FRONTEND_HOST, LLMSERVER_URL, MCP_SERVER_URL, DATABASE_URL, FAQ_DATABASE_URL, HTTPX_TIMEOUT, ENVIRONMENT
#                                      the gateway's settings
#   MORE_SETTINGS                      further settings, one NAME=value a line
#   REGISTRY_USR, REGISTRY_PSW         to log in for as long as this takes
#   BALANCER                           a program called with `remove HOST` before a host is stopped and with
#                                      `add HOST` when it is ready again; a balancer that notices by itself needs none
#   IMAGE, CONTAINER, PUBLISH, MEMORY, READY_SECONDS   see run.sh

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# write_env_file FILE: the settings, from the environment, for nobody else to read.
write_env_file() {
    local name missing=''
    for name in "${REQUIRED_SETTINGS[@]}" HTTPX_TIMEOUT ENVIRONMENT; do
        [[ -n ${!name:-} ]] || missing="$missing $name"
        [[ ${!name:-} != *$'\n'* ]] || fail "$name must be one line."
    done
    [[ -z $missing ]] || fail "The environment lacks:$missing."
    (
        umask 077
        for name in "${REQUIRED_SETTINGS[@]}" HTTPX_TIMEOUT ENVIRONMENT; do
            printf '%s=%s\n' "$name" "${!name}"
        done
        printf '%s\n' "${MORE_SETTINGS:-}"
    ) >"$1"
}

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    '') misused "VERSION is missing." ;;
esac
[[ $1 =~ ^sha256:[0-9a-f]{64}$ ]] || check_version "$1"
check_image
check_credentials
check_hosts

umask 077
WORK=$(mktemp -d)
trap 'leave_hosts; rm -rf "$WORK"' EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT
write_env_file "$WORK/env"
check_env_file "$WORK/env"
registry_login

# Before anything is changed every host has answered, has the image, and is deployed to by nobody else.
reference=$(reference_to "$1")
for HOST in $DEPLOY_HOSTS; do
    export DOCKER_HOST="ssh://$HOST"
    check_docker
    docker image inspect "$reference" >/dev/null 2>&1 || docker pull "$reference" ||
        fail "$HOST cannot pull $reference; nothing was changed."
    LOCKED="${LOCKED:-} $HOST"
    take_lock "$reference"
done
unset DOCKER_HOST

export ENV_FILE="$WORK/env"
if ! one_after_the_other deploy "$1"; then
    [[ -z $DONE ]] || printf 'To go back where it is deployed:\n  DEPLOY_HOSTS="%s" docker-scripts/rollback.sh\n' "$DONE" >&2
    fail "$HOST did not come up; it runs what it ran before, like the hosts after it."
fi
printf 'Deployed to every host.\n'
