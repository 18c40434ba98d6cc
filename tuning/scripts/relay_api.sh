# Sourced by the scripts beside it: how they call the relay.
: "${RELAY_ADMIN_KEY:?RELAY_ADMIN_KEY (the admin key of the relay) is not set}"
: "${RELAY_HOST:?RELAY_HOST (name or URL of the relay) is not set}"

case "$RELAY_HOST" in
  http://* | https://*) relay="${RELAY_HOST%/}" ;;
  localhost:* | 127.*) relay="http://$RELAY_HOST" ;;
  *) relay="https://$RELAY_HOST" ;;
esac

# The key goes by standard input: arguments of a process can be read by others.
relay_api() {
  local key="${RELAY_ADMIN_KEY//\\/\\\\}"
  printf 'header = "Authorization: Bearer %s"\n' "${key//\"/\\\"}" |
    curl --silent --show-error --fail-with-body --max-time 60 --config - \
      -H 'Content-Type: application/json' "$@"
}

# One name and value as a JSON object.
json() {
  local value="${2//\\/\\\\}"
  printf '{"%s":"%s"}' "$1" "${value//\"/\\\"}"
}

urlencode() {
  local text="$1" out='' char i
  for ((i = 0; i < ${#text}; i++)); do
    char="${text:i:1}"
    case "$char" in
      [A-Za-z0-9._~-]) out+="$char" ;;
      *) printf -v char '%%%02X' "'$char" && out+="$char" ;;
    esac
  done
  printf '%s' "$out"
}
