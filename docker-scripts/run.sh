#!/usr/bin/env bash
# Runs the gateway's image on the engine that the docker command reaches (DOCKER_HOST says which).
#
#   docker-scripts/run.sh dev               builds the image, runs it over the source in this directory, until Ctrl-C
#   docker-scripts/run.sh deploy VERSION    puts VERSION (a tag, or a digest sha256:...) in place of what runs, and
#                                           waits until it is ready; however else this ends, what ran before is
#                                           started again
#   docker-scripts/run.sh rollback          puts what ran before the last deploy, which is kept, in place of what runs
#
# Settings are in .env, which may lie elsewhere. Environment:
#
#   ENV_FILE        the file with the settings (.env)
#   IMAGE           the image's name without its tag (card-chat-gateway)
#   CONTAINER       the container's name (card-chat-gateway)
#   PUBLISH         deploy: port, or address and port, of the host (8001)
#   MEMORY          deploy: limit of memory (1g)
#   READY_SECONDS   deploy: how long it may take until it is ready (90)

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENV_FILE=${ENV_FILE:-$ROOT/.env}
PUBLISH=${PUBLISH:-8001}
MEMORY=${MEMORY:-1g}
READY_SECONDS=${READY_SECONDS:-90}

dev() {
    local terminal=()
    if [[ -t 0 && -t 1 ]]; then terminal=(--interactive --tty); fi
    "$ROOT/docker-scripts/build.sh" dev
    # On the host's network, so that the addresses of .env.example mean the same inside.
    exec docker run --rm --init ${terminal[@]+"${terminal[@]}"} --name "$CONTAINER-dev" --network host \
        --env-file "$ENV_FILE" --env ENVIRONMENT=development --env HOST=127.0.0.1 \
        --volume "$ROOT:/app:ro" --read-only --tmpfs /tmp "$(reference_to dev)"
}

deploy() {
    local reference stop
    reference=$(reference_to "$1")
    stop=$(stop_seconds "$ENV_FILE")
    docker image inspect "$reference" >/dev/null 2>&1 || docker pull "$reference" ||
        fail "The image $reference is neither here nor in its registry; nothing was changed."
    hold_the_engine "$reference"
    stand_aside
    if run_detached "$reference" "$stop" && wait_until_ready; then
        keep_for_a_rollback
        docker image prune --all --force --filter "label=$LABEL" >/dev/null || true
        printf '%s is ready as %s.\n' "$reference" "$CONTAINER"
        return
    fi
    docker logs --tail 20 "$CONTAINER" >&2 || true
    if ! exists "$CONTAINER-replaced"; then docker rm --force "$CONTAINER" >/dev/null || true; fi
    fail "$reference did not start, or was not ready within $READY_SECONDS s."
}

rollback() {
    exists "$CONTAINER-previous" || fail "There is nothing to go back to: no $CONTAINER-previous."
    hold_the_engine "$(docker container inspect --format '{{.Image}}' "$CONTAINER-previous")"
    stand_aside
    docker rename "$CONTAINER-previous" "$CONTAINER"
    if docker start "$CONTAINER" >/dev/null && wait_until_ready; then
        keep_for_a_rollback
        printf '%s is what it was before.\n' "$CONTAINER"
        return
    fi
    docker logs --tail 20 "$CONTAINER" >&2 || true
    fail "$CONTAINER-previous did not start, or was not ready within $READY_SECONDS s."
}

# hold_the_engine IMAGE: alone on it; and whatever ends this script from here on, something is left running.
hold_the_engine() {
    trap leave EXIT
    trap 'exit 143' TERM HUP
    trap 'exit 130' INT
    take_lock "$1"
    # Left by a deploy that was killed before it could do this itself.
    if exists "$CONTAINER-replaced"; then restore; fi
}

leave() {
    trap '' INT TERM HUP
    if exists "$CONTAINER-replaced"; then restore || true; fi
    release_lock || true
}

# stand_aside: what runs is stopped, and is called CONTAINER-replaced until what comes in its place is ready.
stand_aside() {
    exists "$CONTAINER" || return 0
    docker rename "$CONTAINER" "$CONTAINER-replaced"
    docker stop "$CONTAINER-replaced" >/dev/null
}

# restore: what ran before runs again, and what was to take its place is gone. It may be stopping still: then a start
# would find it running, so the stop is awaited first.
restore() {
    docker rm --force "$CONTAINER" >/dev/null 2>&1 || true
    docker rename "$CONTAINER-replaced" "$CONTAINER"
    docker stop "$CONTAINER" >/dev/null
    docker start "$CONTAINER" >/dev/null || return 1
    printf 'What ran before as %s has been started again.\n' "$CONTAINER" >&2
}

keep_for_a_rollback() {
    exists "$CONTAINER-replaced" || return 0
    if exists "$CONTAINER-previous"; then docker rm --force "$CONTAINER-previous" >/dev/null; fi
    docker rename "$CONTAINER-replaced" "$CONTAINER-previous"
}

exists() {
    docker container inspect "$1" >/dev/null 2>&1
}

run_detached() {
    docker run --detach --init --name "$CONTAINER" --restart unless-stopped --stop-timeout "$2" \
        --publish "$PUBLISH:8001" --env-file "$ENV_FILE" \
        --env HOST=0.0.0.0 --env PORT=8001 --env "STOP_GRACE_SECONDS=$2" \
        --read-only --tmpfs /tmp:rw,noexec,nosuid,size=16m \
        --cap-drop ALL --security-opt no-new-privileges \
        --memory "$MEMORY" --pids-limit 256 --ulimit nofile=65536:65536 \
        --log-driver local --log-opt max-size=50m --log-opt max-file=5 \
        "$1" >/dev/null
}

wait_until_ready() {
    local until=$((SECONDS + READY_SECONDS))
    until docker exec "$CONTAINER" python healthcheck.py ready >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        sleep 1
    done
}

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    dev) (($# == 1)) || misused "dev takes no further argument." ;;
    deploy)
        (($# == 2)) || misused "deploy takes one VERSION."
        [[ $2 =~ ^sha256:[0-9a-f]{64}$ ]] || check_version "$2"
        ;;
    rollback) (($# == 1)) || misused "rollback takes no further argument." ;;
    '') misused "Say dev, deploy VERSION, or rollback." ;;
    *) misused "There is no '$1', only dev, deploy VERSION and rollback." ;;
esac
[[ $READY_SECONDS =~ ^[0-9]{1,4}$ ]] || misused "READY_SECONDS must be a whole number of seconds."
[[ $PUBLISH =~ ^([0-9.]+:|\[[0-9a-f:]+\]:)?[0-9]{1,5}$ ]] || misused "PUBLISH must be a port, or address:port, not '$PUBLISH'."
check_image
check_docker
[[ $1 == rollback ]] || check_env_file "$ENV_FILE"
"$@"
