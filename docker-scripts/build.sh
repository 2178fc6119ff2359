#!/usr/bin/env bash
# Builds the gateway's image and tags it.
#
#   docker-scripts/build.sh VERSION [options of docker build ...]
#
#   VERSION   the tag: 1.2.0, or what `git describe --tags --always` says
#   IMAGE     environment: the name before the tag, with the registry if there is one (card-chat-gateway)

set -euo pipefail
# shellcheck source=docker-scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    '') misused "VERSION is missing." ;;
esac
version=$1
shift
check_version "$version"
check_image
check_docker

revision=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null || echo unknown)
docker build --tag "$(reference_to "$version")" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" "$ROOT"
printf 'Built %s.\n' "$(reference_to "$version")"
