#!/usr/bin/env bash
# Makes web/vendor/ of what package-lock.json pins, whose hashes npm checks: one file, the licences, the checksums.
# A new version: `npm install --package-lock-only NAME@VERSION` here, then this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out=../../web/vendor

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp package.json package-lock.json markdown.js "$work"
npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent

versions=()
for name in markdown-it markdown-it-cjk-friendly; do
    versions+=("$name $(node -p "require('$work/node_modules/$name/package.json').version")")
done
"$work/node_modules/.bin/esbuild" "$work/markdown.js" --bundle --minify --format=esm --target=es2022 --charset=utf8 \
    --legal-comments=none --log-level=warning --outfile="$out/markdown-it.js" \
    --banner:js="// ${versions[0]}, ${versions[1]}; MIT and BSD, see LICENSES.txt. Made by make vendor."

for licence in "$work"/node_modules/*/[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*; do
    name=$(basename "$(dirname "$licence")")
    [[ $name == esbuild || $name == argparse ]] && continue # not in the bundle
    printf '%s %s\n\n' "$name" "$(node -p "require('$work/node_modules/$name/package.json').version")"
    sed 's/\r$//' "$licence"
    printf '\n%s\n\n' "--------------------------------------------------------------------------------"
done >"$out/LICENSES.txt"
(cd "$out" && sha256sum markdown-it.js LICENSES.txt >SHA256SUMS)
