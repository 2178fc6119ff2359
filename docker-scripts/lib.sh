# shellcheck shell=bash disable=SC2034
# What the scripts beside this one have in common. They source it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
IMAGE=${IMAGE:-card-chat-gateway}
CONTAINER=${CONTAINER:-card-chat-gateway}
# What images of the gateway are known by, whatever they are tagged.
LABEL=org.opencontainers.image.title=card-chat-gateway
# Who holds the lock of an engine: this script, for those that it calls as well.
LOCKED_BY_CALLER=${LOCK_OWNER:+yes}
export LOCK_OWNER=${LOCK_OWNER:-${BUILD_TAG:-$(id -un)@${HOSTNAME:-here}}-$$-$RANDOM}
REQUIRED_SETTINGS=(FRONTEND_HOST LLMSERVER_URL MCP_SERVER_URL DATABASE_URL FAQ_DATABASE_URL)
# The gateway's default for DRAIN_SECONDS, and what it may need beyond it to store, say goodbye and close.
DRAIN_SECONDS_DEFAULT=25
STOP_SECONDS_BEYOND_DRAIN=15

# fail SENTENCE: something is not as it should be (exit status 1).
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# misused SENTENCE: the script was called wrongly (exit status 2).
misused() {
    printf '%s: %s (%s --help tells more.)\n' "$(basename "$0")" "$1" "$(basename "$0")" >&2
    exit 2
}

# show_help: the comment at the head of the script that was called.
show_help() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

check_image() {
    local name='^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*$'
    [[ $IMAGE =~ $name ]] || misused "IMAGE must be a name without a tag, like registry/team/card-chat-gateway, not '$IMAGE'."
}

# check_version VERSION: usable as a tag.
check_version() {
    local tag='^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$'
    [[ $1 =~ $tag ]] || misused "VERSION must be letters, digits, dots, dashes and underscores, like 1.2.0, not '$1'."
}

# reference_to VERSION: the image of a version, which may also be a digest.
reference_to() {
    case $1 in
        sha256:*) printf '%s@%s' "$IMAGE" "$1" ;;
        *) printf '%s:%s' "$IMAGE" "$1" ;;
    esac
}

check_docker() {
    command -v docker >/dev/null || fail "The docker command is needed, and is not in PATH."
    docker version >/dev/null 2>&1 ||
        fail "The Docker engine does not answer${DOCKER_HOST:+ at $DOCKER_HOST}; 'docker version' tells why."
}

# value_of FILE NAME: what an env file says of a setting, or nothing.
value_of() {
    sed -n "s/^[[:space:]]*$2=//p" "$1" | tail -n 1 | tr -d '[:space:]'
}

# check_env_file FILE: it is there, has every setting that the gateway cannot do without, and Docker can read it.
check_env_file() {
    [[ -f $1 && -r $1 ]] || fail "$1 does not exist or cannot be read; copy .env.example to it and fill it in."
    local name missing='' quoted
    for name in "${REQUIRED_SETTINGS[@]}"; do
        [[ -n $(value_of "$1" "$name") ]] || missing="$missing $name"
    done
    [[ -z $missing ]] || fail "$1 lacks the required settings:$missing."
    quoted=$(sed -nE "s/^[[:space:]]*(export[[:space:]]+[A-Za-z_]+|[A-Za-z0-9_]+=[\"']).*/\1/p" "$1" | tr -d "=\"'" | tr '\n' ' ')
    [[ -z $quoted ]] || fail "$1 has 'export' or quotes, which Docker would take for a part of the setting: ${quoted% }."
}

# stop_seconds FILE: how long a container may take to end, above the DRAIN_SECONDS of its env file.
stop_seconds() {
    local drain
    drain=$(value_of "$1" DRAIN_SECONDS)
    drain=${drain:-$DRAIN_SECONDS_DEFAULT}
    [[ ${drain%%.*} =~ ^[0-9]{1,4}$ ]] || fail "DRAIN_SECONDS in $1 must be a number of seconds."
    printf '%d' $((10#${drain%%.*} + STOP_SECONDS_BEYOND_DRAIN))
}

# check_credentials: with REGISTRY_USR there are a password and a registry that they are for; without one in IMAGE
# Docker would send them to its own.
check_credentials() {
    [[ -n ${REGISTRY_USR:-} ]] || return 0
    [[ -n ${REGISTRY_PSW:-} ]] || fail "REGISTRY_PSW is missing."
    [[ $IMAGE =~ ^([^/]*[.:][^/]*|localhost)/ ]] ||
        misused "IMAGE must begin with the registry that REGISTRY_USR is for, like registry.example.com/$IMAGE."
}

# registry_login: where REGISTRY_USR is set, with REGISTRY_PSW; forgotten when the script ends. The caller has
# set WORK to a directory of its own that is removed then.
registry_login() {
    [[ -n ${REGISTRY_USR:-} ]] || return 0
    export DOCKER_CONFIG="$WORK/docker"
    printf '%s' "$REGISTRY_PSW" |
        docker login --username "$REGISTRY_USR" --password-stdin "${IMAGE%%/*}" >&2 ||
        fail "The registry does not accept REGISTRY_USR and REGISTRY_PSW."
}

# take_lock IMAGE: this engine is ours until release_lock, by the name of a container that never runs: an engine gives a
# name away once, whoever asks and from where. IMAGE is one that the engine has.
take_lock() {
    docker container create --name "$CONTAINER-lock" --label "owner=$LOCK_OWNER" "$1" true >/dev/null 2>&1 && return
    local owner
    owner=$(docker container inspect --format '{{index .Config.Labels "owner"}}' "$CONTAINER-lock" 2>/dev/null) ||
        fail "The lock $CONTAINER-lock cannot be created${DOCKER_HOST:+ at $DOCKER_HOST}."
    [[ $owner != "$LOCK_OWNER" ]] || return 0
    fail "$owner is deploying${DOCKER_HOST:+ at $DOCKER_HOST}. If it was killed, 'docker rm $CONTAINER-lock' there."
}

# release_lock: if it is ours, and not our caller's.
release_lock() {
    [[ -z $LOCKED_BY_CALLER ]] || return 0
    local owner
    owner=$(docker container inspect --format '{{index .Config.Labels "owner"}}' "$CONTAINER-lock" 2>/dev/null) || return 0
    if [[ $owner == "$LOCK_OWNER" ]]; then docker rm "$CONTAINER-lock" >/dev/null; fi
}

check_hosts() {
    [[ ${DEPLOY_HOSTS:-} == *[![:space:]]* ]] || misused "DEPLOY_HOSTS is empty; it names the hosts, separated by spaces."
    local host
    for host in $DEPLOY_HOSTS; do
        [[ $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*(@[A-Za-z0-9_.-]+)?(:[0-9]+)?$ ]] ||
            misused "DEPLOY_HOSTS must be like 'deploy@host-1 deploy@host-2', not '$host'."
    done
}

# one_after_the_other COMMAND ...: run.sh with this on each host, which is out of the balancer meanwhile. It stops at
# the first that fails: HOST is that one, DONE are those before it.
one_after_the_other() {
    DONE=''
    for HOST in $DEPLOY_HOSTS; do
        printf '%s ...\n' "$HOST"
        balance remove || return 1
        DOCKER_HOST="ssh://$HOST" "$ROOT/docker-scripts/run.sh" "$@" || return 1
        balance add || return 1
        DONE="$DONE${DONE:+ }$HOST"
    done
}

# balance remove|add: HOST, where there is a BALANCER to be told. OUTSIDE is the host that is to be put back.
balance() {
    [[ -n ${BALANCER:-} ]] || return 0
    if [[ $1 == remove ]]; then OUTSIDE=$HOST; fi
    "$BALANCER" "$1" "$HOST" || return 1
    if [[ $1 == add ]]; then OUTSIDE=''; fi
}

# leave_hosts: however a script that goes from host to host ends, what it holds of them is given back.
leave_hosts() {
    local host
    trap '' INT TERM HUP
    if [[ -n ${OUTSIDE:-} ]]; then HOST=$OUTSIDE balance add || true; fi
    for host in ${LOCKED:-}; do DOCKER_HOST="ssh://$host" release_lock || true; done
}
