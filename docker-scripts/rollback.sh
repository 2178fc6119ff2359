#!/usr/bin/env bash
# Goes back to what ran before the last deploy, on one host after the other: image and settings, nothing is pulled. Done
# twice, it goes forward again.
#
#   DEPLOY_HOSTS='deploy@host-1 deploy@host-2' docker-scripts/rollback.sh
#
# Environment:
#
#   DEPLOY_HOSTS               user@host, separated by spaces
#   BALANCER                   see deploy.sh
#   CONTAINER, READY_SECONDS   see run.sh

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    '') ;;
    *) misused "It takes no argument; DEPLOY_HOSTS names the hosts." ;;
esac
check_hosts
trap leave_hosts EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT
# Before anything is changed every host has answered, has something to go back to, and is deployed to by nobody else.
for HOST in $DEPLOY_HOSTS; do
    export DOCKER_HOST="ssh://$HOST"
    check_docker
    image=$(docker container inspect --format '{{.Image}}' "$CONTAINER-previous" 2>/dev/null) ||
        fail "$HOST has no $CONTAINER-previous to go back to; nothing was changed."
    LOCKED="${LOCKED:-} $HOST"
    take_lock "$image"
done
unset DOCKER_HOST
one_after_the_other rollback || fail "$HOST could not go back, and was left as it was, like the hosts after it."
printf 'Every host runs what it ran before.\n'
