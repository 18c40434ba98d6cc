#!/usr/bin/env bash
# Installs what drives a browser through the dashboard into DIR/browser. The browser is the system's Chromium.
#   install-browser.sh DIR
# Needs Node 20 with npm.
set -euo pipefail
dir="${1:?usage: install-browser.sh DIR}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version=1.64.1
mkdir -p "$dir/browser"
cd "$dir/browser"
if [ "$(cat installed 2>/dev/null)" != "$version" ]; then
  [ -f package.json ] || npm init -y >/dev/null
  npm install --no-audit --no-fund --ignore-scripts "playwright-core@$version"
  printf '%s' "$version" >installed
fi
# Modules are resolved from the folder that a script stands in.
cp "$here/dashboard.mjs" .
