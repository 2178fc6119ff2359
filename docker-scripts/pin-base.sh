#!/usr/bin/env bash
# Pins the base image of the Dockerfile by the digest that its tag has in the registry now: `make base-image`.
# Asks with skopeo, docker or podman, whichever is there first. Look at the difference, build, test, and commit it.

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# digest_of NAME: of the index of all architectures, where the tag is one.
digest_of() {
    if command -v skopeo >/dev/null; then
        skopeo inspect --no-tags --format '{{.Digest}}' "docker://$1"
    elif command -v docker >/dev/null; then
        docker pull --quiet "$1" >/dev/null && docker image inspect --format '{{index .RepoDigests 0}}' "$1"
    elif command -v podman >/dev/null; then
        podman pull --quiet "$1" >/dev/null && podman image inspect --format '{{.Digest}}' "$1"
    else
        fail "One of skopeo, docker and podman is needed, and none is in PATH."
    fi | sed -n 's/^.*\(sha256:[0-9a-f]\{64\}\)$/\1/p' | head -n 1
}

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    '') ;;
    *) misused "It takes no argument." ;;
esac
name=$(sed -n 's/^FROM \([^@ ]*\).*/\1/p' "$ROOT/Dockerfile" | sort -u)
[[ -n $name && $name != *$'\n'* ]] || fail "The Dockerfile has more than one base image, or none."
digest=$(digest_of "docker.io/library/$name") || true
[[ -n $digest ]] || fail "The registry gave no digest for $name; the Dockerfile is as it was."
content=$(sed "s|^FROM $name\(@[^ ]*\)\{0,1\}|FROM $name@$digest|" "$ROOT/Dockerfile")
printf '%s\n' "$content" >"$ROOT/Dockerfile"
printf '%s is pinned as %s.\n' "$name" "$digest"
