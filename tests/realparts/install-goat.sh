#!/usr/bin/env bash
# Installs goat, the protocol's command line tool, into DIR/bin.
#   install-goat.sh DIR
# Needs Go. The tool asks the PLC directory at a fixed address, which is set when it is linked: the
# test plays the directory there.
set -euo pipefail
dir="${1:?usage: install-goat.sh DIR}"
version=v0.0.0-20250813051257-8be102876fb7
plc=http://127.82.69.76:2582
module=github.com/bluesky-social/indigo
mkdir -p "$dir/bin"
stamp="$version $plc"
if [ "$(cat "$dir/bin/goat.installed" 2>/dev/null)" != "$stamp" ]; then
  GOBIN="$(cd "$dir/bin" && pwd)" GOFLAGS=-mod=mod GOTOOLCHAIN=local go install \
    -ldflags "-X $module/atproto/identity.DefaultPLCURL=$plc" "$module/cmd/goat@$version"
  printf '%s' "$stamp" >"$dir/bin/goat.installed"
fi
