#!/bin/sh
# Makes this machine Atoll's control plane. Its state is on a disk of its own, which outlives the machine.
set -eu

package='${package}'
host='${host}'
disk='/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volume}'
state=/var/lib/atoll

# The disk and the address are attached while the machine boots: what needs them is tried for ten minutes.
again() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || return 1
        sleep 5
    done
}

again test -e "$disk"
blkid "$disk" >/dev/null || mkfs.ext4 -q "$disk"
mkdir -p "$state"
grep -q " $state " /etc/fstab || echo "$disk $state ext4 defaults,nofail 0 2" >>/etc/fstab
mountpoint -q "$state" || mount "$state"

id atoll >/dev/null 2>&1 || useradd --system --home-dir "$state" --shell /usr/sbin/nologin atoll
chown atoll: "$state"
chmod 700 "$state"

export DEBIAN_FRONTEND=noninteractive
again apt-get -qq update
again apt-get -qq install -y --no-install-recommends python3 python3-venv ca-certificates >/dev/null
python3 -m venv /opt/atoll
again /opt/atoll/bin/pip install --quiet "$package"
ln -sf /opt/atoll/bin/atoll /usr/local/bin/atoll

mkdir -p /etc/atoll
cat >/etc/atoll/server.toml <<END
[server]
listen = "0.0.0.0:443"
public_url = "https://$host"
names = ["$host"]

[agent]
enabled = false
END

cat >/etc/systemd/system/atoll.service <<END
[Unit]
Description=Atoll control plane
Wants=network-online.target
After=network-online.target
RequiresMountsFor=$state

[Service]
User=atoll
Environment=ATOLL_HOME=$state
ExecStart=/opt/atoll/bin/atoll up --no-agent --config /etc/atoll/server.toml
AmbientCapabilities=CAP_NET_BIND_SERVICE
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now atoll.service
