#!/usr/bin/env bash
# Starts a sync of all accounts of a PDS host, or shows how far the running one is.
#   RELAY_HOST=relay.example.com RELAY_ADMIN_KEY=secret sync_pds.sh pds.example.com
#   cat hosts.txt | parallel -j1 ./sync_pds.sh {}
# A relay that keeps no copy of repositories (as relayered) has nothing to sync: then the host's record
# is shown, with its status, its cursor and its number of accounts.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/relay_api.sh"
host="${1:?usage: sync_pds.sh HOST}"
query="host=$(urlencode "$host")"

if reply="$(relay_api "$relay/admin/pds/resync?$query" 2>/dev/null)"; then
  echo "GET resync $host"
elif reply="$(relay_api -X POST "$relay/admin/pds/resync?$query" 2>&1)"; then
  echo "POST resync $host"
elif [[ "$reply" == *MirrorDisabled* ]]; then
  echo "$host: this relay keeps no copy of repositories, so that there is nothing to sync" >&2
  reply="$(relay_api "$relay/admin/pds/get?$query")"
else
  echo "$reply" >&2
  exit 1
fi
echo "$reply"
