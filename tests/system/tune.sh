#!/usr/bin/env bash
# Tests scripts/tune.sh: against the real /proc/sys where that may be written, against a made-up tree for the rules,
# and in a network namespace of its own for harmful values. Whatever happens, the box keeps the values it had.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
TUNE=$PWD/scripts/tune.sh
WORK=$(mktemp -d)
NETNS=drumline-tune-$$
PASSED=0 FAILED=0 SKIPPED=0
export DRUMLINE_TUNE_STATE=$WORK/state/tune.saved
unset DRUMLINE_TUNE_ROOT DRUMLINE_TUNE_PROC DRUMLINE_TUNE_SYS DRUMLINE_TUNE_PROCESSORS DRUMLINE_TUNE_CONNECTIONS

KNOBS="fs.file-max fs.nr_open net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.core.netdev_max_backlog
net.ipv4.tcp_mem net.ipv4.tcp_rmem net.ipv4.tcp_wmem net.ipv4.tcp_notsent_lowat net.ipv4.tcp_slow_start_after_idle
net.ipv4.tcp_max_orphans net.ipv4.tcp_keepalive_time net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes
net.ipv4.ip_local_port_range vm.swappiness kernel.io_uring_disabled"

# dump PROC: every knob with its exact bytes; dots become slashes, as in sysctl(8).
dump() {
    local knob file
    for knob in $KNOBS; do
        file=$1/sys/${knob//.//}
        if [[ -r $file ]]; then printf '%s=%s\n' "$knob" "$(od -An -c "$file" | tr -d '\n')"; fi
    done
}

pass() { PASSED=$((PASSED + 1)) && printf 'ok    %s\n' "$1"; }
skip() { SKIPPED=$((SKIPPED + 1)) && printf 'skip  %s\n' "$1"; }
fail() {
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$1"
    shift
    printf '%s\n' "$@" | sed 's/^/      | /'
}

# same WHAT WANTED GOT
same() { if [[ $2 == "$3" ]]; then pass "$1"; else fail "$1" "wanted:" "$2" "got:" "$3"; fi; }

# says WHAT TEXT REGEX
says() { if grep -Eq -- "$3" <<<"$2"; then pass "$1"; else fail "$1" "no match for $3 in:" "$2"; fi; }
silent() { if grep -Eq -- "$3" <<<"$2"; then fail "$1" "unwanted match for $3 in:" "$2"; else pass "$1"; fi; }

cleanup() {
    if [[ -f $DRUMLINE_TUNE_STATE ]]; then "$TUNE" restore >/dev/null 2>&1; fi
    ip netns del "$NETNS" 2>/dev/null
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- the shape of the command -------------------------------------------------------------------------------------

test_usage() {
    local out
    out=$("$TUNE" help) && says "help names the four commands" "$out" 'check \| apply \| restore \| persist'
    out=$("$TUNE" polish 2>&1)
    same "an unknown command exits 2" 2 $?
    says "an unknown command says which there are" "$out" "unknown command 'polish'.*check, apply"
    out=$(DRUMLINE_TUNE_CONNECTIONS=many "$TUNE" check 2>&1)
    says "a wrong number says what to give" "$out" "'many': give a number"
}

# --- the rules, on a made-up tree ---------------------------------------------------------------------------------

# fake NAME VALUE: a setting in the made-up /proc.
fake() {
    local file=$WORK/proc/sys/${1//.//}
    mkdir -p "$(dirname "$file")" && printf '%s\n' "$2" >"$file"
}
faked() { cat "$WORK/proc/sys/${1//.//}"; }

# rule WHAT NAME BEFORE AFTER: what apply makes of a value.
rule() {
    fake "$2" "$3"
    DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" apply >/dev/null 2>&1
    same "$1" "$4" "$(faked "$2")"
    DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" restore >/dev/null
    same "$1, and back" "$3" "$(faked "$2")"
}

test_rules() {
    mkdir -p "$WORK/proc/self" && cp /proc/self/limits "$WORK/proc/self/limits"
    printf 'MemTotal: 16777216 kB\n' >"$WORK/proc/meminfo"
    local page quarter
    page=$(getconf PAGESIZE)
    quarter=$((16777216 * 1024 / page / 4))
    rule "min raises" net.core.somaxconn 128 32768
    rule "min keeps what is better" net.core.somaxconn 65535 65535
    rule "the largest file-max is no overflow" fs.file-max 9223372036854775807 9223372036854775807
    rule "max lowers" vm.swappiness 60 1
    rule "max keeps what is better" vm.swappiness 0 0
    rule "exact" net.ipv4.tcp_slow_start_after_idle 1 0
    rule "range from above" net.ipv4.tcp_notsent_lowat 4294967295 16384
    rule "range from below" net.ipv4.tcp_keepalive_time 5 60
    rule "range inside" net.ipv4.tcp_keepalive_time 300 300
    rule "tcp_mem goes up with RAM" net.ipv4.tcp_mem $'50576\t64768\t98152' \
        "$((quarter / 2)) $((quarter * 3 / 4)) $quarter"
    rule "tcp_mem is never lowered" net.ipv4.tcp_mem $'94500000\t915000000\t927000000' \
        $'94500000\t915000000\t927000000'
    rule "tcp_wmem: default and maximum are capped" net.ipv4.tcp_wmem $'4096\t8388608\t16777216' '4096 16384 4194304'
    rule "tcp_wmem: small stays small" net.ipv4.tcp_wmem $'4096\t8192\t65536' $'4096\t8192\t65536'
    rule "a port range only grows" net.ipv4.ip_local_port_range $'1024\t60999' '1024 65535'
}

test_second_apply() {
    local first
    fake net.core.somaxconn 128
    export DRUMLINE_TUNE_PROC=$WORK/proc
    "$TUNE" apply >/dev/null
    fake net.core.somaxconn 256
    "$TUNE" apply >/dev/null
    first=$(grep -c '^net.core.somaxconn 128$' "$DRUMLINE_TUNE_STATE")
    same "a second apply keeps the first saved value" 1 "$first"
    same "a second apply saves nothing twice" 1 "$(grep -c '^net.core.somaxconn' "$DRUMLINE_TUNE_STATE")"
    "$TUNE" restore >/dev/null
    same "restore goes back to the first value" 128 "$(faked net.core.somaxconn)"
    unset DRUMLINE_TUNE_PROC
}

test_harms_on_a_fake() {
    local out
    fake net.ipv4.tcp_tw_recycle 1
    fake net.ipv4.tcp_max_tw_buckets 6000
    fake net.core.busy_poll 50
    fake net.ipv4.tcp_mem '50576 64768 98152'
    fake net.ipv4.tcp_wmem '4096 8388608 16777216'
    fake net.netfilter.nf_conntrack_max 65536
    fake net.netfilter.nf_conntrack_count 1200
    out=$(DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" check)
    same "check exits 1 on harm" 1 $?
    for knob in tcp_tw_recycle tcp_max_tw_buckets busy_poll tcp_mem tcp_wmem nf_conntrack_max; do
        says "check warns of $knob" "$out" "^WARNING: [a-z0-9.]*$knob = "
    done
    DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" apply >/dev/null
    says "check prints how to exempt the port" "$out" 'tcp dport 8000 notrack'
    same "apply leaves a harmful switch alone" 1 "$(faked net.ipv4.tcp_tw_recycle)"
    DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" restore >/dev/null
}

# --- network cards and the table of TCP connections, on a made-up tree ---------------------------------------------

# card NAME QUEUES: a network card in the made-up /sys, with interrupts 40 and up in the made-up /proc.
card() {
    local queue folder=$WORK/sys/class/net/$1
    mkdir -p "$folder/device/msi_irqs"
    for ((queue = 0; queue < $2; queue++)); do
        mkdir -p "$folder/queues/rx-$queue" "$folder/queues/tx-$queue" "$WORK/proc/irq/$((40 + queue))/$1-TxRx-$queue"
        printf '00000003\n' >"$folder/queues/tx-$queue/xps_cpus"
        printf '0-1\n' >"$WORK/proc/irq/$((40 + queue))/smp_affinity_list"
        touch "$folder/device/msi_irqs/$((40 + queue))"
    done
}

# queues_of NAME QUEUES: interrupts and masks, each followed by a blank.
queues_of() {
    local queue
    for ((queue = 0; queue < $2; queue++)); do
        printf '%s %s ' "$(cat "$WORK/proc/irq/$((40 + queue))/smp_affinity_list")" \
            "$(cat "$WORK/sys/class/net/$1/queues/tx-$queue/xps_cpus")"
    done
}

test_cards() {
    local out
    export DRUMLINE_TUNE_PROC=$WORK/proc DRUMLINE_TUNE_SYS=$WORK/sys DRUMLINE_TUNE_PROCESSORS=40
    mkdir -p "$WORK/sys/class/net/lo/queues/rx-0" "$WORK/sys/class/net/lo/queues/rx-1"
    out=$("$TUNE" check)
    says "without a card the commands are printed" "$out" '^    ethtool -L CARD combined N '
    card nic0 3
    out=$("$TUNE" check)
    says "check shows the interrupt of a queue" "$out" '^would change +irq/42/smp_affinity_list +0-1 +2 '
    says "check shows the queues" "$out" '^note +nic0 .receive queues. +3 +40 .*ethtool -L nic0 combined 40'
    silent "the loopback interface is no card" "$out" '^[a-z ]+lo '
    "$TUNE" apply >/dev/null
    same "apply gives each queue a processor" '0 1 1 2 2 4 ' "$(queues_of nic0 3)"
    out=$("$TUNE" check)
    says "the queues are ok then" "$out" '^ok +net/nic0/queues/tx-2/xps_cpus +4 +4 '
    "$TUNE" restore >/dev/null
    same "restore gives them back" '0-1 00000003 0-1 00000003 0-1 00000003 ' "$(queues_of nic0 3)"
    card nic0 34
    "$TUNE" apply >/dev/null
    same "a mask has groups of 32 bits" 2,00000000 "$(cat "$WORK/sys/class/net/nic0/queues/tx-33/xps_cpus")"
    "$TUNE" restore >/dev/null
    out=$(DRUMLINE_TUNE_ROOT=$WORK/cards "$TUNE" persist)
    says "persist says that it keeps no queues" "$out" '^The queues of nic0 are not kept'
    silent "persist writes no queues" "$(cat "$WORK/cards/etc/sysctl.d/90-drumline.conf")" 'xps|affinity'
    mkdir -p "$WORK/proc/77" && echo irqbalance >"$WORK/proc/77/comm"
    says "check warns of irqbalance" "$("$TUNE" check)" '^WARNING: irqbalance = running'
    rm -r "$WORK/proc/77" "$WORK/sys/class/net/nic0"
    card nic1 1
    says "a card with one queue is noted" "$("$TUNE" check)" '^note +nic1 .receive queues. +1 +40 '
    rm -r "$WORK/sys/class/net/nic1"
    unset DRUMLINE_TUNE_PROC DRUMLINE_TUNE_SYS DRUMLINE_TUNE_PROCESSORS
}

test_tcp_table() {
    local out
    fake net.ipv4.tcp_ehash_entries 262144
    out=$(DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" check)
    says "a small table of connections is noted" "$out" '^note +TCP table .buckets. +262144 +1048576 '
    says "with the boot option" "$out" 'thash_entries=1048576 on the kernel command line'
    says "and the namespace" "$out" 'net.ipv4.tcp_child_ehash_entries=1048576'
    fake net.ipv4.tcp_ehash_entries -4194304
    out=$(DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" check)
    says "a large table is ok" "$out" '^ok +TCP table .buckets. +4194304 '
}

test_state_of_another_boot() {
    local out
    mkdir -p "$(dirname "$DRUMLINE_TUNE_STATE")"
    fake net.core.somaxconn 4096
    printf 'boot long-ago\nnet.core.somaxconn 128\n' >"$DRUMLINE_TUNE_STATE"
    out=$(DRUMLINE_TUNE_PROC=$WORK/proc "$TUNE" restore)
    says "a state from before a boot is dropped" "$out" 'before the last boot'
    same "and is not written" 4096 "$(faked net.core.somaxconn)"
}

# --- the real /proc/sys -------------------------------------------------------------------------------------------

test_round_trip() {
    local before after out code
    before=$(dump /proc)
    out=$("$TUNE" check)
    code=$?
    if ((code > 1)); then fail "check exits 0 or 1" "exit $code" "$out"; else pass "check exits 0 or 1"; fi
    says "check ends with a summary" "$out" '^[0-9]+ ok, [0-9]+ would change, [0-9]+ may not change'
    same "check changes nothing" "$before" "$(dump /proc)"
    out=$("$TUNE" apply)
    says "apply says what it did" "$out" '^[0-9]+ changed, [0-9]+ may not change'
    after=$(dump /proc)
    out=$("$TUNE" apply)
    says "a second apply changes nothing" "$out" '^0 changed'
    same "a second apply leaves the values" "$after" "$(dump /proc)"
    out=$("$TUNE" check)
    says "after apply nothing is left to change" "$out" '^[0-9]+ ok, 0 would change'
    "$TUNE" restore >/dev/null
    same "restore exits 0" 0 $?
    same "every value is back, byte for byte" "$before" "$(dump /proc)"
    if [[ -e $DRUMLINE_TUNE_STATE ]]; then fail "restore removes the state" ""; else pass "restore removes the state"; fi
    out=$("$TUNE" restore)
    same "a second restore exits 0" 0 $?
    says "a second restore says that nothing is saved" "$out" 'nothing to restore'
    same "a second restore changes nothing" "$before" "$(dump /proc)"
}

test_read_only() {
    local out before
    # shellcheck disable=SC2016 # expanded by the inner shell
    local script='mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 77; "$0" "$1"'
    if ! unshare -m true 2>/dev/null; then skip "no mount namespace here: read-only /proc/sys" && return; fi
    before=$(dump /proc)
    out=$(unshare -m bash -c "$script" "$TUNE" apply 2>&1)
    case $? in
    77) skip "may not remount /proc/sys read-only here" && return ;;
    2) fail "read-only: apply goes on" "$out" ;;
    *) pass "read-only: apply goes on" ;;
    esac
    says "read-only: apply changes nothing" "$out" '^0 changed'
    if [[ -e $DRUMLINE_TUNE_STATE ]]; then fail "read-only: nothing is saved" ""; else pass "read-only: nothing is saved"; fi
    out=$(unshare -m bash -c "$script" "$TUNE" check)
    says "read-only: check offers no change" "$out" '^[0-9]+ ok, 0 would change'
    same "read-only: the values stay" "$before" "$(dump /proc)"
}

test_harm_in_a_namespace() {
    local out before
    before=$(cat /proc/sys/net/ipv4/tcp_sack)
    if ! ip netns add "$NETNS" 2>/dev/null; then skip "no network namespace here: harmful values" && return; fi
    out=$(ip netns exec "$NETNS" "$TUNE" check)
    silent "a fresh namespace has no harmful value" "$out" '^WARNING: net.ipv4.tcp_sack'
    ip netns exec "$NETNS" sh -c 'echo 0 >/proc/sys/net/ipv4/tcp_sack; echo 1 >/proc/sys/net/ipv4/tcp_abort_on_overflow'
    out=$(ip netns exec "$NETNS" "$TUNE" check)
    same "harmful values fail the check" 1 $?
    says "tcp_sack=0 is flagged" "$out" '^WARNING: net.ipv4.tcp_sack = 0: '
    says "tcp_abort_on_overflow=1 is flagged" "$out" '^WARNING: net.ipv4.tcp_abort_on_overflow = 1: '
    same "the box keeps its own tcp_sack" "$before" "$(cat /proc/sys/net/ipv4/tcp_sack)"
    ip netns del "$NETNS"
}

# --- persist ------------------------------------------------------------------------------------------------------

test_persist() {
    local root=$WORK/root out before
    before=$(dump /proc)
    out=$(DRUMLINE_TUNE_ROOT=$root "$TUNE" persist)
    same "persist exits 0" 0 $?
    says "persist says how to undo it" "$out" "To undo: *rm $root/etc/sysctl.d/90-drumline.conf"
    says "persist writes sysctls" "$(cat "$root/etc/sysctl.d/90-drumline.conf")" '^net.core.somaxconn = [0-9]+$'
    silent "persist writes no harmful switch" "$(cat "$root/etc/sysctl.d/90-drumline.conf")" \
        '^[a-z0-9.]*(tw_recycle|tw_reuse|timestamps|sack|syncookies|abort_on_overflow|busy_poll|mem_default) ='
    says "persist writes the limit" "$(cat "$root/etc/security/limits.d/90-drumline.conf")" '^\* hard nofile 1048576$'
    says "persist writes the drop-in" "$(cat "$root/etc/systemd/system/drumline.service.d/90-limits.conf")" \
        '^LimitNOFILE=1048576$'
    DRUMLINE_TUNE_ROOT=$root "$TUNE" persist >/dev/null
    same "persist may run again" 0 $?
    echo mine >"$root/etc/sysctl.d/90-drumline.conf"
    out=$(DRUMLINE_TUNE_ROOT=$root "$TUNE" persist 2>&1)
    same "persist spares a file that is not its own" 2 $?
    says "and says so" "$out" 'is not from tune.sh: move it away'
    same "persist changes no running value" "$before" "$(dump /proc)"
}

test_usage
test_rules
test_second_apply
test_harms_on_a_fake
test_cards
test_tcp_table
test_state_of_another_boot
test_round_trip
test_read_only
test_harm_in_a_namespace
test_persist

if ((SKIPPED > 0)); then printf '%d skipped (not permitted here)\n' "$SKIPPED"; fi
printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
((FAILED == 0))
