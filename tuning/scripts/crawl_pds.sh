#!/usr/bin/env bash
# Adds a PDS host to a relay, and gives it generous limits.
#   RELAY_HOST=relay.example.com RELAY_ADMIN_KEY=secret crawl_pds.sh pds.example.com
#   cat hosts.txt | parallel -j1 ./crawl_pds.sh {}
# RELAY_HOST is a name (then by https), a URL, or localhost:PORT. PER_SECOND, PER_HOUR, PER_DAY,
# CRAWL_RATE and REPO_LIMIT change the limits.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/relay_api.sh"
host="${1:?usage: crawl_pds.sh HOST}"

echo "requestCrawl $host"
relay_api -d "$(json hostname "$host")" "$relay/admin/pds/requestCrawl" >/dev/null

echo "changeLimits $host"
limits="\"per_second\":${PER_SECOND:-100},\"per_hour\":${PER_HOUR:-1000000}"
limits+=",\"per_day\":${PER_DAY:-1000000},\"crawl_rate\":${CRAWL_RATE:-10}"
limits+=",\"repo_limit\":${REPO_LIMIT:-1000000}"
body="$(json host "$host")"
relay_api -d "${body%\}},$limits}" "$relay/admin/pds/changeLimits" >/dev/null
