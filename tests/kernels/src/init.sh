#!/bin/busybox sh
# The guest's first process: mounts, loads drivers, runs /run.sh, powers off. The runner reads what follows "@@".
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root RUST_BACKTRACE=0 RINGTAP_EXAMPLES=/examples RINGTAP_FRAMES=20000
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /sys/fs/bpf /run
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
while read -r module; do modprobe "$module" 2>/dev/null; done </modules
echo 0 >/proc/sys/kernel/printk_ratelimit
# Cards send nothing of their own.
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ulimit -l unlimited
ulimit -n 65536
# The kernel writes to the first console: nothing of it gets in between here.
exec >"$RINGTAP_RESULTS" 2>&1
echo "@@ booted $(uname -r) after $(cut -d' ' -f1 /proc/uptime) s"

# cell NAME SECONDS COMMAND...
cell() {
    name=$1 limit=$2
    shift 2
    begun=$(cut -d. -f1 /proc/uptime)
    timeout -k 5 "$limit" "$@" >/tmp/out 2>&1 </dev/null
    code=$?
    echo "@@ cell $name $code $(($(cut -d. -f1 /proc/uptime) - begun))"
    grep -E '^test result|^test .*(FAILED|ignored)|^NOT RUN|^@' /tmp/out | cut -c1-300 | sed 's/^/@> /'
    [ $code = 0 ] || tail -n "${LINES:-60}" /tmp/out | cut -c1-300 | sed 's/^/@| /'
    dmesg -c | grep -E 'WARNING:|BUG:|Oops|general protection|RIP:|blocked for more|stall' | sed 's/^/@! /'
}

. /run.sh
echo "@@ end after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
