#!/bin/sh
# Makes this machine an agent of the Atoll installation at @URL@.
# Use: curl … @URL@/join | sh -s -- atj_…
set -eu

url='@URL@'
pin='@PIN@'
case "${1:-}" in
    atj_*) ATOLL_JOIN_TOKEN="$1" && shift ;;
esac
token="${ATOLL_JOIN_TOKEN:-}"
home="${ATOLL_HOME:-$HOME/.atoll}"

fail() {
    printf 'atoll: %s\n' "$1" >&2
    printf '  hint: %s\n' "$2" >&2
    exit 125
}

case "$token" in
    atj_*) ;;
    *) fail "no join token was given" "make one with 'atoll token create' and paste the whole line it prints" ;;
esac

export ATOLL_JOIN_TOKEN="$token"

if command -v atoll >/dev/null 2>&1; then
    exec atoll agent join "$url" "$@"
fi

command -v python3 >/dev/null 2>&1 || fail "python3 is not installed" "install Python 3.11, 3.12 or 3.13"
tag="$(python3 -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')"
umask 077
mkdir -p "$home"
lib="$home/agent-lib"
fresh="$home/agent-lib.$$"
trap 'rm -rf "$fresh" "$fresh.tar.gz"' EXIT

fetch() {
    if [ -n "$pin" ]; then
        curl -sSk --pinnedpubkey "sha256//$pin" -w '%{http_code}' -o "$2" "$1"
    else
        curl -sSL -w '%{http_code}' -o "$2" "$1"
    fi
}

printf 'atoll: fetching the agent from %s\n' "$url" >&2
status="$(fetch "$url/v1/agent.tar.gz?tag=$tag" "$fresh.tar.gz")" ||
    fail "cannot fetch the agent from $url" "check that this machine reaches it"
if [ "$status" != 200 ]; then
    reason="$(python3 -c 'import json, sys; p = json.load(open(sys.argv[1])); print(p["detail"], "-", p["hint"])' \
        "$fresh.tar.gz" 2>/dev/null || echo "HTTP status $status")"
    fail "the control plane gave no agent: $reason" "see above"
fi
mkdir "$fresh"
tar -xzf "$fresh.tar.gz" -C "$fresh"
rm -rf "$lib"
mv "$fresh" "$lib"
rm -f "$fresh.tar.gz"
mkdir -p "$home/bin"
cat >"$home/bin/atoll-agent" <<END
#!/bin/sh
PYTHONPATH='$lib' ATOLL_HOME='$home' exec python3 -m agent "\$@"
END
chmod 700 "$home/bin/atoll-agent"
printf 'atoll: this machine has no atoll command; use %s run|leave instead of atoll agent run|leave\n' \
    "$home/bin/atoll-agent" >&2
ATOLL_JOIN_TOKEN="$token" exec "$home/bin/atoll-agent" join "$url" "$@"
