#!/usr/bin/env bash
# Installs schemathesis, which tries an API against its OpenAPI document, into DIR/schemathesis.
#   install-schemathesis.sh DIR
# Needs Python 3 with venv.
set -euo pipefail
dir="${1:?usage: install-schemathesis.sh DIR}"
version=4.32.5
mkdir -p "$dir"
if [ "$(cat "$dir/schemathesis/installed" 2>/dev/null)" != "$version" ]; then
  python3 -m venv "$dir/schemathesis"
  "$dir/schemathesis/bin/pip" install --quiet "schemathesis==$version"
  printf '%s' "$version" >"$dir/schemathesis/installed"
fi
