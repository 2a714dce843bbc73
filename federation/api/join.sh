#!/bin/sh
# Makes this machine an agent of the Atoll installation at @URL@.
# Use: the line that `atoll token create` prints: it fetches this script, compares its SHA-256, and runs it.
set -eu

url='@URL@'
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
umask 077
mkdir -p "$home"
lib="$home/agent-lib"
printf 'atoll: fetching the agent from %s\n' "$url" >&2
python3 - "$url" "$home" <<'PYTHON' || exit 125
@FETCH@
PYTHON
mkdir -p "$home/bin"
cat >"$home/bin/atoll-agent" <<END
#!/bin/sh
PYTHONPATH='$lib' ATOLL_HOME='$home' exec python3 -m agent "\$@"
END
chmod 700 "$home/bin/atoll-agent"
printf 'atoll: this machine has no atoll command; use %s run|leave instead of atoll agent run|leave\n' \
    "$home/bin/atoll-agent" >&2
ATOLL_JOIN_TOKEN="$token" exec "$home/bin/atoll-agent" join "$url" "$@"
