#!/usr/bin/env bash
# Installs a real PDS, a real PLC directory and real firehose consumers into DIR: about 300 MB, 3 minutes.
#   install.sh DIR
# Needs Node 20 with its headers in /usr/include/node, Python 3 with venv, and a C++ compiler (one module is compiled).
set -euo pipefail
dir="${1:?usage: install.sh DIR}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$dir"
cd "$dir"
stamp="$(cat "$here/install.sh" | sha256sum)"
if [ "$(cat installed 2>/dev/null)" != "$stamp" ]; then
  [ -f package.json ] || npm init -y >/dev/null
  npm install --no-audit --no-fund --ignore-scripts \
    @atproto/pds@0.4.217 @did-plc/server@0.0.1 @did-plc/lib @atproto/crypto @atcute/firehose@1.0.0 @skyware/firehose@0.5.2 ws
  npm_config_nodedir=/usr npm rebuild better-sqlite3 --build-from-source
  python3 -m venv venv
  venv/bin/pip install --quiet atproto==0.0.73
  printf '%s' "$stamp" >installed
fi
# Modules are resolved from the folder that a script stands in.
cp "$here"/*.mjs "$here"/*.py .
