#!/usr/bin/env bash
# Kernel settings, limits and network cards for a million sockets on one box: check, apply, restore, persist.
#
# The table `knobs` lists the wanted value and the reason of each setting. The function `target` computes the value
# that a setting would get; a setting is fine when it has that value. The script never lowers a better value. `apply`
# saves each old value before it writes, and `restore` writes exactly the saved bytes.
#
# The table omits vm.max_map_count, because a shard maps few regions, far below the default of 65530. `apply` never
# writes the settings under `harms`.
set -euo pipefail

PROC=${DRUMLINE_TUNE_PROC:-/proc}
SYS=${DRUMLINE_TUNE_SYS:-/sys}
STATE=${DRUMLINE_TUNE_STATE:-/var/lib/drumline/tune.saved}
ROOT=${DRUMLINE_TUNE_ROOT:-}
CONNECTIONS=${DRUMLINE_TUNE_CONNECTIONS:-1000000}
# SHARDS_MAX of src/base/limits.rs; a unit test there compares the two.
SHARDS_MAX=62
NOFILE=1048576 # the kernel's own ceiling for one ring's direct descriptor table (1 << 20)
MARK='# Written by drumline scripts/tune.sh persist.'

usage() {
    cat <<'TEXT'
usage: scripts/tune.sh check | apply | restore | persist | help

  check    show every setting: ok, would change, may not change; exit 0 if all are ok, otherwise 1
  apply    save the current values, then write the wanted ones, until the next boot; exit 1 if one cannot be changed
  restore  write back the values that apply saved
  persist  write sysctl.d, limits.d and a systemd drop-in, which apply the settings at every boot

  DRUMLINE_TUNE_STATE        file in which apply saves the old values (/var/lib/drumline/tune.saved)
  DRUMLINE_TUNE_ROOT         prefix of the files that persist writes (none)
  DRUMLINE_TUNE_CONNECTIONS  connections to size for (1000000)
TEXT
}

die() {
    printf 'tune: %s\n' "$*" >&2
    exit 2
}

# --- reading ------------------------------------------------------------------------------------------------------

# file_of NAME: the file of a sysctl, of an interrupt (irq/N/...) or of a network card (net/CARD/...).
file_of() {
    case $1 in
    irq/*) printf '%s/%s' "$PROC" "$1" ;;
    net/*) printf '%s/class/%s' "$SYS" "$1" ;;
    *) printf '%s/sys/%s' "$PROC" "${1//.//}" ;;
    esac
}

# folded NAME VALUE: blanks folded to one space; a mask of processors without leading zeros.
folded() {
    local words=() mask
    read -r -a words <<<"$2"
    if [[ $1 == */xps_cpus ]]; then
        mask=${words[*]:-}
        mask=${mask#"${mask%%[!0,]*}"}
        printf '%s' "${mask:-0}"
    else
        printf '%s' "${words[*]:-}"
    fi
}

# The value as the kernel prints it, folded; empty if this kernel or namespace has no such setting.
now() {
    local text='' file
    file=$(file_of "$1")
    if [[ -r $file ]]; then
        read -r text <"$file" 2>/dev/null || true
    fi
    if [[ -n $text ]]; then folded "$1" "$text"; fi
}

ram_pages() {
    local kb page
    kb=$(awk '$1 == "MemTotal:" { print $2 }' "$PROC/meminfo")
    page=$(getconf PAGESIZE)
    printf '%d' $((${kb:-0} * 1024 / page))
}

# The I-th word of a value, counted from 0.
word() {
    local words
    read -r -a words <<<"$1"
    printf '%s' "${words[$2]:-0}"
}

# --- the knobs ----------------------------------------------------------------------------------------------------
# A rule says which values are as good as the wanted one:
#   min N        N or more
#   max N        N or less
#   exact N      N
#   range LO HI  between the two
#   min3 A B C   each of the three at least as large
#   cap3 A B C   each of the three at most as large ("-": leave that one)
#   wide LO HI   a range that covers this one
NAMES=() RULES=() WHYS=() SOURCES=()

knob() {
    NAMES+=("$1") RULES+=("$2") WHYS+=("$3") SOURCES+=("$4")
}

# tcp_mem is counted in pages. A quarter of RAM as the ceiling: the kernel's own default is about 9 %.
tcp_mem_wanted() {
    local ram
    ram=$(ram_pages)
    printf '%d %d %d' $((ram / 8)) $((ram * 3 / 16)) $((ram / 4))
}

# An orphan can pin 64 KiB that cannot be swapped: never ask for more of them than fit in a quarter of RAM.
orphans_wanted() {
    local fit
    fit=$(($(ram_pages) * $(getconf PAGESIZE) / 4 / 65536))
    printf '%d' $((fit < 262144 ? fit : 262144))
}

knobs() {
    local ip=kernel:networking/ip-sysctl fs=kernel:admin-guide/sysctl/fs net=kernel:admin-guide/sysctl/net
    local files=$((CONNECTIONS * 2 > 2097152 ? CONNECTIONS * 2 : 2097152))
    knob fs.file-max "min $files" "Every socket is an open file, direct descriptors too." $fs
    knob fs.nr_open "min $files" "The default caps RLIMIT_NOFILE of one process just above a million." $fs
    knob net.core.somaxconn "min 32768" "A reconnect storm fills the accept queue; past it SYNs are dropped." $ip
    knob net.ipv4.tcp_max_syn_backlog "min 16384" "Half-open handshakes of a reconnect storm must fit." $ip
    knob net.core.netdev_max_backlog "min 16384" "Loopback, veth and RPS drop packets beyond this queue." $net
    knob net.ipv4.tcp_mem "min3 $(tcp_mem_wanted)" \
        "Pages; past the last all TCP of the box is throttled (a quarter of RAM)." $ip
    knob net.ipv4.tcp_rmem "cap3 - 131072 33554432" "A small default and a bounded maximum limit what one peer pins." $ip
    knob net.ipv4.tcp_wmem "cap3 - 16384 4194304" "A slow reader pins its whole send buffer: keep the default small." $ip
    knob net.ipv4.tcp_notsent_lowat "range 4096 16384" \
        "Unsent bytes stay in user space, where they can be bounded or conflated." $ip
    knob net.ipv4.tcp_slow_start_after_idle "exact 0" "A push after a pause must not pay slow start again." $ip
    knob net.ipv4.tcp_max_orphans "min $(orphans_wanted)" \
        "A mass close leaves orphans; beyond the limit they are reset (64 KiB each at most)." $ip
    knob net.ipv4.tcp_keepalive_time "range 60 600" "Sockets that ask for keepalive find a dead peer in minutes." $ip
    knob net.ipv4.tcp_keepalive_intvl "range 10 60" "Time between two probes." $ip
    knob net.ipv4.tcp_keepalive_probes "range 3 6" "Unanswered probes before the peer counts as dead." $ip
    knob net.ipv4.ip_local_port_range "wide 10240 65535" \
        "Client side: ports toward one address and port; starts above the usual service ports." $ip
    knob vm.swappiness "max 1" "A swapped connection table turns one push into disk reads." kernel:admin-guide/sysctl/vm
    knob kernel.io_uring_disabled "exact 0" "Drumline is made of io_uring rings." kernel:admin-guide/sysctl/kernel
    queues
}

# --- network cards ------------------------------------------------------------------------------------------------
# Queue N of a card belongs to processor N: its interrupt is served there (IRQ affinity), and what that processor sends
# leaves by it (XPS). The worker of each processor then finds its packets in its own cache. A card with one queue has
# nothing to spread.

PROCESSORS=${DRUMLINE_TUNE_PROCESSORS:-$(nproc --all)}
CARDS=() SINGLE_CARDS=()

# mask N: processor N as a mask, in groups of 32 bits.
mask() {
    local groups
    printf '%x' $((1 << $1 % 32))
    for ((groups = $1 / 32; groups > 0; groups--)); do printf ',00000000'; done
}

# interrupts CARD: "QUEUE IRQ" for each interrupt of a queue, by the number at the end of its name.
interrupts() {
    local irq action
    for irq in "$SYS/class/net/$1/device/msi_irqs/"* "$SYS/class/net/$1/device/../msi_irqs/"*; do
        irq=${irq##*/}
        for action in "$PROC/irq/$irq/"*/; do
            action=${action%/}
            action=${action##*/}
            if [[ $action =~ (rx|Rx|input|comp|"$1").*[^0-9]([0-9]+)$ ]]; then
                printf '%s %s\n' "${BASH_REMATCH[2]}" "$irq"
            fi
        done
    done | sort -nu
}

queues() {
    local card name queue irq net=kernel:networking/scaling
    for card in "$SYS"/class/net/*/device; do
        [[ -e $card ]] || continue
        name=$(basename "$(dirname "$card")")
        if [[ ! -d $SYS/class/net/$name/queues/rx-1 ]]; then
            SINGLE_CARDS+=("$name")
            continue
        fi
        CARDS+=("$name")
        while read -r queue irq; do
            knob "irq/$irq/smp_affinity_list" "exact $((queue % PROCESSORS))" \
                "The interrupt of queue $queue of $name, where its shard runs." $net
        done < <(interrupts "$name")
        for queue in "$SYS/class/net/$name/queues"/tx-*; do
            queue=${queue##*-}
            knob "net/$name/queues/tx-$queue/xps_cpus" "exact $(mask $((queue % PROCESSORS)))" \
                "The processor that sends by queue $queue of $name (XPS)." $net
        done
    done
}

# report_cards: how to spread the packets of the cards; commands that reset a card are only printed.
report_cards() {
    local card count state
    for card in "${CARDS[@]}"; do
        count=$(find "$SYS/class/net/$card/queues" -name 'rx-*' | wc -l)
        state=ok
        if ((count < PROCESSORS)); then state=note; fi
        line "$state" "$card (receive queues)" "$count" "$PROCESSORS" \
            "One queue per shard: ethtool -L $card combined $PROCESSORS; ethtool -X $card equal $PROCESSORS. [kernel:networking/scaling]"
    done
    for card in "${SINGLE_CARDS[@]}"; do
        line note "$card (receive queues)" 1 "$PROCESSORS" \
            "One processor takes all packets of $card. [kernel:networking/scaling]"
    done
    if ((${#CARDS[@]} == 0)); then
        printf '    No card with several queues is here. On one that has them, tune.sh apply gives each processor a queue:\n'
        printf '    ethtool -L CARD combined N       a queue per processor (N processors); the link goes down for a moment\n'
        printf '    ethtool -X CARD equal N          packets spread evenly over the queues (RSS)\n'
        printf '    echo P >/proc/irq/I/smp_affinity_list                  the interrupt I of queue P, to processor P\n'
        printf '    echo MASK >/sys/class/net/CARD/queues/tx-P/xps_cpus    processor P sends by queue P (XPS)\n'
    fi
    if grep -qxs irqbalance "$PROC"/[0-9]*/comm; then
        harm irqbalance running "moves the interrupts of the cards away again: systemctl disable --now irqbalance" >>"$WARNINGS"
    fi
}

# The kernel sizes its table of TCP connections at boot: 262,144 buckets on 24 GiB. At a million sockets the look-ups
# take 17% of the server's processor time.
report_tcp_table() {
    local have want=1 state=ok
    have=$(now net.ipv4.tcp_ehash_entries)
    have=${have#-} # negative: this namespace uses the table of the machine
    if [[ -z $have ]]; then return; fi
    while ((want < CONNECTIONS)); do want=$((want * 2)); done
    if ((have < want)); then state=note; fi
    line "$state" "TCP table (buckets)" "$have" "$want" \
        "Long chains make each look-up slow. [kernel:networking/ip-sysctl tcp_ehash_entries]"
    if [[ $state == note ]]; then
        printf '    At the next boot: thash_entries=%d on the kernel command line (GRUB_CMDLINE_LINUX, then update-grub).\n' $want
        printf '    Without a boot, in a network namespace of its own:\n'
        printf '    sysctl -w net.ipv4.tcp_child_ehash_entries=%d; ip netns add drumline\n' $want
        printf '    then move the card into it, or connect it by a veth pair, and start the server with: ip netns exec drumline\n'
    fi
}

at_least() { printf '%s' $(($1 > $2 ? $1 : $2)); }
at_most() { printf '%s' $(($1 < $2 ? $1 : $2)); }

# target RULE NOW: the value this knob would get; equal to NOW when it is as good as wanted.
target() {
    local rule have out=() i
    read -r -a rule <<<"$1"
    read -r -a have <<<"$2"
    local kind=${rule[0]} want=("${rule[@]:1}")
    case $kind in
    min) out=("$(at_least "${have[0]}" "${want[0]}")") ;;
    max) out=("$(at_most "${have[0]}" "${want[0]}")") ;;
    exact) out=("${want[0]}") ;;
    range) out=("$(at_most "$(at_least "${have[0]}" "${want[0]}")" "${want[1]}")") ;;
    wide) out=("$(at_most "${have[0]}" "${want[0]}")" "$(at_least "${have[1]}" "${want[1]}")") ;;
    min3) for i in 0 1 2; do out+=("$(at_least "${have[i]}" "${want[i]}")"); done ;;
    cap3)
        for i in 0 1 2; do
            if [[ ${want[i]} == - ]]; then
                out+=("${have[i]}")
            else
                out+=("$(at_most "${have[i]}" "${want[i]}")")
            fi
        done
        ;;
    *) die "the table has a rule '$kind' that target() does not know: correct scripts/tune.sh" ;;
    esac
    printf '%s' "${out[*]}"
}

# verdict NAME NOW TARGET: ok, would change, may not change, not here.
verdict() {
    if [[ -z $2 ]]; then
        printf 'not here'
    elif [[ $2 == "$3" ]]; then
        printf 'ok'
    elif [[ -w $(file_of "$1") ]]; then
        printf 'would change'
    else
        printf 'may not change'
    fi
}

# --- the harmful classics -----------------------------------------------------------------------------------------

HARMS=0

# harm NAME VALUE WHY: one warning line.
harm() {
    HARMS=$((HARMS + 1))
    printf 'WARNING: %s = %s: %s\n' "$1" "$2" "$3"
}

# harm_if NAME OP NUMBER WHY [WORD]: warn when that word of the value compares so.
harm_if() {
    local value number
    value=$(now "$1")
    [[ -n $value ]] || return 0
    number=$(word "$value" "${5:-0}")
    case $2 in
    eq) ((number == $3)) || return 0 ;;
    ne) ((number != $3)) || return 0 ;;
    lt) ((number < $3)) || return 0 ;;
    gt) ((number > $3)) || return 0 ;;
    esac
    harm "$1" "$value" "$4"
}

harms() {
    local ram spins="every program that polls spins on the CPU; busy polling belongs to one socket or ring"
    local pins="every slow reader of every program may pin megabytes; keep the default small and let it grow"
    ram=$(ram_pages)
    harm_if net.ipv4.tcp_tw_recycle ne 0 "drops connections of clients behind NAT; gone since Linux 4.12. Set it to 0"
    harm_if net.ipv4.tcp_timestamps eq 0 "no protection against wrapped sequence numbers, worse round-trip times. Set it to 1"
    harm_if net.ipv4.tcp_sack eq 0 "one lost packet has a whole window sent again. Set it to 1"
    harm_if net.ipv4.tcp_syncookies eq 0 "a SYN flood or a reconnect storm locks everybody out. Set it to 1"
    harm_if net.ipv4.tcp_abort_on_overflow eq 1 "a short accept burst becomes resets instead of retries. Set it to 0"
    harm_if net.ipv4.tcp_max_tw_buckets lt 16384 "TIME_WAIT ends early, so old segments can enter new connections; an entry costs only 248 bytes"
    harm_if net.ipv4.tcp_mem lt $((ram / 16)) "counted in pages, not bytes: too small for this RAM, a million sockets are throttled. See tune.sh apply" 2
    harm_if net.ipv4.tcp_mem gt $((ram / 2)) "counted in pages, not bytes: more than half of RAM, so nothing protects the box from its sockets" 2
    harm_if net.ipv4.tcp_rmem gt 1048576 "$pins" 1
    harm_if net.ipv4.tcp_wmem gt 1048576 "$pins" 1
    harm_if net.core.rmem_default gt 1048576 "$pins"
    harm_if net.core.wmem_default gt 1048576 "$pins"
    harm_if net.core.busy_poll ne 0 "$spins. Set it to 0"
    harm_if net.core.busy_read ne 0 "$spins. Set it to 0"
}

# --- what is only reported ----------------------------------------------------------------------------------------

line() { printf '%-15s %-35s %-24s %-24s %s\n' "$@"; }

report_nofile() {
    local soft hard state=ok
    read -r soft hard < <(awk '/^Max open files/ { print $4, $5 }' "$PROC/self/limits")
    if [[ $hard != unlimited ]] && ((hard < NOFILE)); then state=note; fi
    line "$state" "RLIMIT_NOFILE (soft hard)" "$soft $hard" "hard $NOFILE" \
        "Caps the direct table of each ring, not of the process. [io_uring_register_files(3)]"
    if [[ $state == note ]]; then
        local shards=$(((CONNECTIONS * 112 / 100 + hard - 1) / hard))
        printf '    Raise it: ulimit -Hn %d as root, or tune.sh persist. Where it cannot be raised, use more shards than\n' $NOFILE
        printf '    cores: every ring has a table of %s slots, so --shards %d carries %d connections.\n' "$hard" "$shards" "$CONNECTIONS"
        if ((shards > SHARDS_MAX)); then
            printf '    (A node has at most %s shards: here the limit itself must go up.)\n' "$SHARDS_MAX"
        fi
    fi
}

report_conntrack() {
    local max count state=ok
    max=$(now net.netfilter.nf_conntrack_max)
    count=$(now net.netfilter.nf_conntrack_count)
    if [[ -z $max ]]; then
        line ok nf_conntrack "not loaded" "not loaded" "Nothing tracks connections. [kernel:networking/nf_conntrack-sysctl]"
        return
    fi
    if ((${count:-0} > 0 && max < CONNECTIONS * 2)); then
        state=note
        harm net.netfilter.nf_conntrack_max "$max" \
            "connections are tracked ($count now) and a full table drops packets silently. Exempt the listen port (nft: notrack) or set it to $((CONNECTIONS * 2))" >>"$WARNINGS"
    fi
    line "$state" "nf_conntrack (tracked, max)" "${count:-0}, $max" "0 tracked" \
        "A tracked connection costs memory, a full table drops. [kernel:networking/nf_conntrack-sysctl]"
    if ((${count:-0} > 0)); then
        printf '    To exempt the listen port (here 8000), where no rule for it needs the state of connections:\n'
        printf "    nft 'table inet drumline { chain in { type filter hook prerouting priority raw; tcp dport 8000 notrack; }\n"
        printf "        chain out { type filter hook output priority raw; tcp sport 8000 notrack; }; }'\n"
    fi
}

report_thp() {
    local file=$SYS/kernel/mm/transparent_hugepage/enabled mode state=ok
    [[ -r $file ]] || return 0
    mode=$(sed -n 's/.*\[\(.*\)\].*/\1/p' "$file")
    if [[ $mode == always ]]; then state=note; fi
    line "$state" transparent_hugepage "$mode" "madvise or never" \
        "'always' inflates sparse memory and stalls on compaction; Drumline gains nothing. [kernel:admin-guide/mm/transhuge]"
}

# --- check --------------------------------------------------------------------------------------------------------

check() {
    local i have want state fine=0 change=0 barred=0 absent=0
    WARNINGS=$(mktemp)
    trap 'rm -f "$WARNINGS"' EXIT
    line STATE SETTING NOW WANTED "WHY [SOURCE]"
    for i in "${!NAMES[@]}"; do
        have=$(now "${NAMES[i]}")
        want=${RULES[i]#* }
        if [[ -n $have ]]; then want=$(target "${RULES[i]}" "$have"); fi
        state=$(verdict "${NAMES[i]}" "$have" "$want")
        case $state in
        ok) fine=$((fine + 1)) ;;
        "would change") change=$((change + 1)) ;;
        "may not change") barred=$((barred + 1)) ;;
        *) absent=$((absent + 1)) ;;
        esac
        line "$state" "${NAMES[i]}" "${have:--}" "$want" "${WHYS[i]} [${SOURCES[i]}]"
    done
    report_nofile
    report_tcp_table
    report_cards
    report_conntrack
    report_thp
    harms >>"$WARNINGS"
    cat "$WARNINGS"
    summary "$fine" "$change" "$barred" "$absent" "$(grep -c '^WARNING' "$WARNINGS" || true)"
}

summary() {
    printf '\n%d ok, %d would change, %d may not change, %d not here, %d harmful\n' "$@"
    printf 'kernel:NAME is https://docs.kernel.org/NAME.html\n'
    if (($2 > 0)); then printf 'To set what would change: %s apply\n' "$0"; fi
    if (($3 > 0)); then
        printf 'What may not change here is read-only or needs root: run tune.sh on the host, as root.\n'
    fi
    (($2 + $3 + $5 == 0))
}

# --- apply and restore --------------------------------------------------------------------------------------------
# The state file: "boot ID" on the first line, then "NAME VALUE" in the order of writing, values as the kernel printed
# them. An entry is written before its setting is touched and is never overwritten.

boot_id() { cat "$PROC/sys/kernel/random/boot_id" 2>/dev/null || printf 'unknown'; }

saved_in_this_boot() { [[ $(head -n 1 "$STATE") == "boot $(boot_id)" ]]; }

saved() { [[ -f $STATE ]] && awk -v name="$1" '$1 == name { found = 1 } END { exit !found }' "$STATE"; }

open_state() {
    if [[ -f $STATE ]] && ! saved_in_this_boot; then
        printf 'tune: %s is from before the last boot, which has reset everything: starting anew\n' "$STATE"
        rm -f "$STATE"
    fi
    if [[ ! -f $STATE ]]; then
        { mkdir -p "$(dirname "$STATE")" && printf 'boot %s\n' "$(boot_id)" >"$STATE"; } 2>/dev/null ||
            die "cannot write $STATE, so nothing could be restored later: run as root or set DRUMLINE_TUNE_STATE"
    fi
}

# put NAME VALUE: write it and make sure that the kernel took it.
put() {
    local file
    file=$(file_of "$1")
    { printf '%s\n' "$2" >"$file"; } 2>/dev/null || return 1
    [[ $(now "$1") == "$(folded "$1" "$2")" ]]
}

apply_one() {
    local name=$1 have=$2 want=$3 fresh=0
    if [[ ! -w $(file_of "$name") ]]; then
        printf 'may not change  %s = %s (wanted %s): read-only here or not root; set it on the host\n' "$name" "$have" "$want"
        return 1
    fi
    open_state
    if ! saved "$name"; then
        printf '%s %s\n' "$name" "$(cat "$(file_of "$name")")" >>"$STATE"
        fresh=1
    fi
    if put "$name" "$want"; then
        printf 'changed         %s: %s -> %s\n' "$name" "$have" "$want"
        return 0
    fi
    if ((fresh)) && [[ $(now "$name") == "$have" ]]; then sed -i '$d' "$STATE"; fi
    printf 'refused         %s = %s (wanted %s): the kernel did not take the value\n' "$name" "$have" "$want"
    return 1
}

apply() {
    local i have want changed=0 barred=0
    for i in "${!NAMES[@]}"; do
        have=$(now "${NAMES[i]}")
        [[ -n $have ]] || continue
        want=$(target "${RULES[i]}" "$have")
        [[ $have != "$want" ]] || continue
        if apply_one "${NAMES[i]}" "$have" "$want"; then changed=$((changed + 1)); else barred=$((barred + 1)); fi
    done
    # Only the boot line: nothing was changed, so there is nothing to restore.
    if [[ -f $STATE ]] && (($(wc -l <"$STATE") < 2)); then rm -f "$STATE"; fi
    printf '\n%d changed, %d may not change' "$changed" "$barred"
    if [[ -f $STATE ]]; then printf '; tune.sh restore puts %s back' "$STATE"; fi
    printf '\n'
    harms
    ((barred == 0))
}

restore() {
    local name value done=0 failed=0
    if [[ ! -f $STATE ]]; then
        printf 'nothing saved in %s: nothing to restore\n' "$STATE"
        return 0
    fi
    if ! saved_in_this_boot; then
        rm -f "$STATE"
        printf '%s was from before the last boot, which has reset everything: nothing to restore\n' "$STATE"
        return 0
    fi
    # Newest first.
    while read -r name value; do
        if put "$name" "$value"; then
            done=$((done + 1))
        else
            printf 'tune: %s cannot be set back to %s: run as root where apply ran\n' "$name" "$value" >&2
            failed=$((failed + 1))
        fi
    done < <(tail -n +2 "$STATE" | tac)
    if ((failed == 0)); then rm -f "$STATE"; fi
    printf '%d restored, %d failed\n' "$done" "$failed"
    ((failed == 0))
}

# --- persist ------------------------------------------------------------------------------------------------------

# install_file PATH, the text on standard input.
install_file() {
    local path=$ROOT$1
    if [[ -f $path && $(head -n 1 "$path") != "$MARK" ]]; then
        die "$path exists and is not from tune.sh: move it away, then run persist again"
    fi
    { mkdir -p "$(dirname "$path")" && { printf '%s\n' "$MARK" && cat; } >"$path"; } 2>/dev/null ||
        die "cannot write $path: run as root, or set DRUMLINE_TUNE_ROOT"
    printf 'wrote %s\n' "$path"
}

sysctl_text() {
    local i have
    for i in "${!NAMES[@]}"; do
        have=$(now "${NAMES[i]}")
        # sysctl.d has no place for interrupts and cards.
        if [[ -z $have || ${NAMES[i]} == */* ]]; then continue; fi
        printf '\n# %s [%s]\n%s = %s\n' "${WHYS[i]}" "${SOURCES[i]}" "${NAMES[i]}" "$(target "${RULES[i]}" "$have")"
    done
}

persist() {
    local sysctl=/etc/sysctl.d/90-drumline.conf limits=/etc/security/limits.d/90-drumline.conf
    local unit=/etc/systemd/system/drumline.service.d/90-limits.conf
    sysctl_text | install_file $sysctl
    # Only the hard limit: Drumline raises its own soft limit, other programs keep theirs.
    printf '* hard nofile %d\nroot hard nofile %d\n' $NOFILE $NOFILE | install_file $limits
    printf '[Service]\nLimitNOFILE=%d\n' $NOFILE | install_file $unit
    if ((${#CARDS[@]} > 0)); then
        printf '\nThe queues of %s are not kept: run tune.sh apply at each boot.\n' "${CARDS[*]}"
    fi
    printf '\nTo load now:  sysctl --system; systemctl daemon-reload; log in again for the limit\n'
    printf 'To undo:      rm %s %s %s; then boot, or sysctl --system and tune.sh restore\n' \
        "$ROOT$sysctl" "$ROOT$limits" "$ROOT$unit"
}

# ------------------------------------------------------------------------------------------------------------------

main() {
    [[ $CONNECTIONS =~ ^[1-9][0-9]{0,8}$ ]] ||
        die "DRUMLINE_TUNE_CONNECTIONS is '$CONNECTIONS': give a number of connections, such as 1000000"
    (($# == 1)) || { usage >&2 && exit 2; }
    case $1 in
    help | -h | --help) usage ;;
    check | apply | restore | persist)
        [[ -d $PROC/sys ]] || die "$PROC/sys is not there: this needs Linux with /proc mounted"
        knobs
        "$1"
        ;;
    *) die "unknown command '$1': one of check, apply, restore, persist, help" ;;
    esac
}

main "$@"
