#!/usr/bin/env bash
# Deploys a pushed image to one host after the other, and stops at the first that does not come up.
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
[[ ${DEPLOY_HOSTS:-} == *[![:space:]]* ]] || misused "DEPLOY_HOSTS is empty; it names the hosts, separated by spaces."
for host in $DEPLOY_HOSTS; do
    [[ $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*(@[A-Za-z0-9_.-]+)?(:[0-9]+)?$ ]] ||
        misused "DEPLOY_HOSTS must be like 'deploy@host-1 deploy@host-2', not '$host'."
done

umask 077
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
write_env_file "$WORK/env"
check_env_file "$WORK/env"
registry_login

for host in $DEPLOY_HOSTS; do
    printf 'Deploying to %s ...\n' "$host"
    if [[ -n ${BALANCER:-} ]]; then "$BALANCER" remove "$host"; fi
    DOCKER_HOST="ssh://$host" ENV_FILE="$WORK/env" "$ROOT/docker-scripts/run.sh" deploy "$1" ||
        fail "$host did not come up; the hosts after it were left as they are."
    if [[ -n ${BALANCER:-} ]]; then "$BALANCER" add "$host"; fi
done
printf 'Deployed to every host.\n'
