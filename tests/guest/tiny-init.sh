#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the tiny guest, whose root is in memory: makes the disks appear, then runs the agent.
#
# With `probe` on the kernel's command line it only shows that this machine can run guests, and switches itself off.

/bin/busybox mkdir -p /dev /proc /sys /run /tmp /mnt /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
if grep -qw probe /proc/cmdline; then
    echo "the probe passed"
    poweroff -f
fi
while read -r module; do
    insmod "$module"
done </modules
# The first process may not end: without it the kernel panics.
while :; do
    /agent
done
