#!/bin/sh
# Boot script of Atoll instance @NAME@: makes this machine an agent of the installation at @URL@
# and switches the machine off when its time is over. It may be run any number of times, at any boot.
# Nothing in it is secret but a join token, which is good once.
# Use: boot.sh           set everything up and return
#      boot.sh run       join, unless that is done, and be the agent
#      boot.sh grant     let the machine live until its boot deadline
#      boot.sh deadman   switch the machine off once its deadline has passed
set -u
umask 077

url=@URL@
boot_s=@BOOT_S@
life_s=@LIFE_S@
export ATOLL_JOIN_TOKEN=@TOKEN@ ATOLL_JOIN_NAME=@NAME@ ATOLL_INSTANCE_CLOUD=@CLOUD@

export PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A pretend machine is told where its home is, and nothing may change outside of it; a real one is not told.
real=''
if [ -z "${ATOLL_HOME:-}" ]; then
    ATOLL_HOME="${HOME:-}/.atoll"
    [ "$(id -u)" = 0 ] && ATOLL_HOME=/var/lib/atoll && [ -d /run/systemd/system ] && real=yes
fi
export ATOLL_HOME HOME="${HOME:-/root}"
export ATOLL_INSTANCE_DEADLINE="$ATOLL_HOME/deadline"
export ATOLL_INSTANCE_POWEROFF="${ATOLL_INSTANCE_POWEROFF:-poweroff}"
self="$ATOLL_HOME/boot.sh"

say() { printf 'atoll: %s\n' "$1" >&2; }

# -- the dead-man: needs neither the agent nor Python nor a clock that is right ------------------------

uptime_s() { read -r now _ </proc/uptime && now="${now%%.*}"; }

grant() {
    uptime_s
    printf '%-19d\n' $((now + boot_s)) >"$ATOLL_INSTANCE_DEADLINE"
}

over() {
    told=''
    { read -r told _ <"$ATOLL_INSTANCE_DEADLINE"; } 2>/dev/null
    case "$told" in '' | *[!0-9]*) ;; *) limit="$told" ;; esac
    uptime_s
    [ "$now" -ge "$limit" ] || [ "$now" -ge "$end" ]
}

watch_from() { # the second of uptime at which this machine's life began
    uptime_s
    limit=$((now + boot_s)) end=$(($1 + life_s))
}

power_off() {
    why="nothing has let it live longer"
    [ "$limit" != 0 ] || why="its agent is done" # it put the deadline there
    say "this machine ends: $why"
    $ATOLL_INSTANCE_POWEROFF || say "$ATOLL_INSTANCE_POWEROFF failed"
    sleep 60
    [ -z "$real" ] || poweroff -ff
}

deadman() {
    until over; do sleep 2; done
    while :; do power_off; done
}

# -- the agent -----------------------------------------------------------------------------------------

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && return
    done
    false
}

need_python() {
    find_python && return
    if [ -n "$real" ] && command -v apt-get >/dev/null 2>&1; then
        say "there is no Python 3.11 to 3.13 here: trying apt-get install python3"
        DEBIAN_FRONTEND=noninteractive timeout 300 sh -c 'apt-get -qq update; apt-get -qq install -y \
            --no-install-recommends -o DPkg::Lock::Timeout=120 python3' >&2
        find_python && return
    fi
    say "CANNOT JOIN: there is no Python 3.11, 3.12 or 3.13 on this machine; use an image that has one"
    false
}

fetch_agent() {
    need_python || return
    say "fetching the agent from $url"
    "$python" - "$url" "$ATOLL_HOME" <<'PYTHON' || return
@FETCH@
PYTHON
    mkdir -p "$ATOLL_HOME/bin"
    cat >"$ATOLL_HOME/bin/atoll-agent.new" <<END
#!/bin/sh
ATOLL_HOME='$ATOLL_HOME' PYTHONPATH='$ATOLL_HOME/agent-lib' exec $python -m agent "\$@"
END
    chmod 700 "$ATOLL_HOME/bin/atoll-agent.new"
    mv "$ATOLL_HOME/bin/atoll-agent.new" "$ATOLL_HOME/bin/atoll-agent"
}

run() {
    umask 022
    if command -v atoll >/dev/null 2>&1; then
        exec atoll agent join "$url" --foreground
    fi
    [ -x "$ATOLL_HOME/bin/atoll-agent" ] || (umask 077 && fetch_agent) || exit
    exec "$ATOLL_HOME/bin/atoll-agent" join "$url" --foreground
}

keep_running() {
    while :; do
        (run 9>&-)
        ! over || power_off
        sleep 5
    done
}

# -- setting up: systemd where it is, else processes in the background ---------------------------------

alone() { # whether this is the one process of this name, as far as can be told
    command -v flock >/dev/null 2>&1 && (: >>"$ATOLL_HOME/$1.lock") 2>/dev/null || return 0
    exec 9>>"$ATOLL_HOME/$1.lock" && flock -n 9
}

unit() {
    cat >"/etc/systemd/system/$1.service.new" && mv "/etc/systemd/system/$1.service.new" "/etc/systemd/system/$1.service"
}

units() {
    [ "$0" = "$self" ] || { cp "$0" "$self.new" && mv "$self.new" "$self"; } || return
    unit atoll-deadman <<END || return
[Unit]
Description=Switches this machine off once nothing lets it live longer
[Service]
ExecStartPre=/bin/sh $self grant
ExecStart=/bin/sh $self deadman
Restart=always
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target
END
    # Sessions outlive their agent and are adopted by the next: only the agent itself is stopped.
    unit atoll-agent <<END || return
[Unit]
Description=Atoll agent
Wants=network-online.target atoll-deadman.service
After=network-online.target atoll-deadman.service
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh $self run
Restart=always
RestartSec=5
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload && systemctl enable --now --no-block atoll-deadman.service atoll-agent.service
}

set_up() {
    mkdir -p "$ATOLL_HOME" || say "$ATOLL_HOME cannot be made"
    [ -n "$real" ] && units && return
    grant
    watch_from "$now"
    (alone deadman && deadman) &
    (alone agent && keep_running) &
}

case "${1:-}" in
    run) run ;;
    grant) grant ;;
    deadman) watch_from 0 && deadman ;;
    *) set_up ;;
esac
