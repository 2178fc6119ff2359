#!/usr/bin/env bash
# Pushes a built image by its tag and prints the digest that the registry gave it.
#
#   docker-scripts/push.sh VERSION
#
#   IMAGE                        environment: the image's name, with the registry
#   REGISTRY_USR, REGISTRY_PSW   environment: user and password, to log in for as long as this takes; without them
#                                Docker's own login counts

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    '') misused "VERSION is missing." ;;
esac
check_version "$1"
check_image
check_credentials
check_docker

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
registry_login
reference=$(reference_to "$1")
docker push "$reference" >&2
digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$reference" |
    sed -n "s|^$IMAGE@\(sha256:[0-9a-f]\{64\}\)\$|\1|p" | tail -n 1)
[[ -n $digest ]] || fail "$reference was pushed, but Docker names no digest for it."
printf '%s\n' "$digest"
