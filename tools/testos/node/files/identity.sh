#!/bin/sh
# Who this node is: a tar on the disk with the serial number `identity`, unpacked at each boot, and the network of the
# machine of that name. The disk of the machine that is saved and copied holds nothing: there nothing happens.
set -eu
. /usr/lib/testos/disks

archive=/run/testos/identity.tar
mkdir -p /run/testos
# Past the cache: the disk of a copy holds something else than the disk that udev has read in the saved machine.
dd if="$(find_disk identity)" of=$archive iflag=direct bs=1M 2> /dev/null
[ -n "$(tar -tf $archive)" ] || exit 0
tar -xf $archive -C /
rm $archive
. /etc/testos/node.env

echo "$NODE_NAME" > /proc/sys/kernel/hostname
ip link set lo up
ip address flush dev eth0
ip address add "$NODE_ADDRESS/24" dev eth0
ip link set eth0 up
ip route replace default via 10.0.2.2
# The address of the service `kubernetes` leads to the API server, which no other node could be asked to pass on.
nft -f - << RULES
table ip testos
delete table ip testos
table ip testos {
    chain output {
        type nat hook output priority -100
        ip daddr $SERVICE_ADDRESS tcp dport 443 dnat to 10.0.2.2:$API_PORT
    }
}
RULES
touch /run/testos/identity
echo "NODE $NODE_NAME has $NODE_ADDRESS, boot $(cat /proc/sys/kernel/random/boot_id)" > /dev/console
