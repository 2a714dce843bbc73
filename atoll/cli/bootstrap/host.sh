# Makes this host an agent. It comes over SSH on the standard input of `sh`, below lines that set
#   known    yes: the control plane knows this host's agent, which is to be started; no: it is to join
#   act      no: look only
#   fetch    the command that puts the control plane's join script into $s, once its hash was found right
# and ATOLL_JOIN_TOKEN and ATOLL_JOIN_NAME where it is to join. The token is in no process's arguments.
# On success the last line of its output is `service: systemd` or `service: background`.
set -eu

fail() {
    printf 'atoll: %s\n  hint: %s\n' "$1" "$2" >&2
    exit 125
}

need() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is not installed" "install $2 on the host"
}

check() {
    if [ -e "$home/agent/agent.json" ]; then
        [ "$known" = yes ] || fail "it is an agent already, with its home in $home" \
            "undo that there with '$command leave', or give the host another home in the inventory"
        return
    fi
    [ "$known" = no ] || fail "the control plane knows its agent, but there is no home $home here" \
        "if it was installed anew: atoll agent remove, and try again"
    need curl curl
    need sha256sum coreutils
    command -v atoll >/dev/null 2>&1 && return
    need python3 "Python 3.11, 3.12 or 3.13"
    python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        fail "its $(python3 --version 2>&1) is not one of 3.11 to 3.13" "install one of them as python3"
}

# Sessions outlive their agent and are adopted by the next: systemd is to end the agent only.
unit() {
    cat <<END
[Unit]
Description=Atoll agent
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Environment=ATOLL_HOME=$home
ExecStart=$command run
Restart=always
RestartSec=5
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
END
}

start() {
    if [ "$service" = systemd ]; then
        unit >/etc/systemd/system/atoll-agent.service
        systemctl daemon-reload
        systemctl enable --quiet atoll-agent.service
        systemctl restart atoll-agent.service
    else
        # shellcheck disable=SC2086 # a command of one or two words
        setsid $command run </dev/null >>"$home/agent/agent.log" 2>&1 &
    fi
}

join() {
    eval "$fetch" || fail "it cannot reach the control plane" \
        "agents dial the control plane themselves: look at '$fetch' there"
    if [ "$service" = systemd ]; then
        sh -c "$s" join --no-start
        start
    else
        sh -c "$s" join
    fi
}

main() {
    home="${ATOLL_HOME:-$HOME/.atoll}"
    export ATOLL_HOME="$home"
    command="$home/bin/atoll-agent"
    service=background
    [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && service=systemd
    # The join script prefers an atoll that is installed.
    atoll="$(command -v atoll || true)"
    [ -z "$atoll" ] || command="$atoll agent"
    check
    case "$act $known" in
        yes\ yes) start ;;
        yes\ no) join ;;
    esac
    printf 'service: %s\n' "$service"
}

main </dev/null
