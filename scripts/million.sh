#!/usr/bin/env bash
# A million connections on this machine, or as many as it holds: builds, sizes the run, runs it.
#
# Usage: scripts/million.sh [--connections N] [OPTION...]
#        scripts/million.sh --help
#
# --connections sets the number of connections; by default it follows from the free memory. Other options go on to
# `drumline-bench million`. `--connections 10000 --stages shared` is a quick first run.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted='' options=()
while (($# > 0)); do
    case $1 in
    -h | --help)
        awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$PWD/scripts/million.sh"
        exit
        ;;
    --connections) wanted=${2:-nothing} && shift ;;
    --connections=*) wanted=${1#*=} ;;
    *) options+=("$1") ;;
    esac
    (($# == 0)) || shift
done
if [[ -n $wanted && ! $wanted =~ ^[1-9][0-9]*$ ]]; then
    echo "million.sh: --connections is '$wanted'; use a number" >&2
    exit 2
fi

# Kernel and user memory of one connection with both of its ends on this machine, and what stays free.
bytes_per_connection=12288
spare_bytes=$((1 << 30))
most=${wanted:-1000000}

available_kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
connections=$(((available_kib * 1024 - spare_bytes) / bytes_per_connection))
if ((connections > most)); then
    connections=$most
fi
if ((connections < 1000 && connections < most)); then
    echo "million.sh: only $((available_kib / 1024)) MiB of memory are available; free some" >&2
    exit 1
fi

# A ring's table of sockets is capped by RLIMIT_NOFILE: more shards where it is low.
ulimit -Sn "$(ulimit -Hn)" || true
nofile=$(ulimit -n)
if [[ $nofile == unlimited ]] || ((nofile > 1048576)); then
    nofile=1048576
fi
slots=$(((nofile - 500) * 95 / 100))
if ((slots < 1)); then
    echo "million.sh: RLIMIT_NOFILE is $nofile; raise the hard limit (ulimit -Hn) to 20000 or more" >&2
    exit 1
fi
shards=$(((connections + slots - 1) / slots))
cores=$(nproc)
if ((shards < cores)); then
    shards=$cores
fi
# SHARDS_MAX of src/base/limits.rs; a unit test there compares the two.
SHARDS_MAX=62
if ((shards > SHARDS_MAX)); then
    shards=$SHARDS_MAX
    connections=$((shards * slots < connections ? shards * slots : connections))
    echo "million.sh: RLIMIT_NOFILE is $nofile, so $SHARDS_MAX shards hold $connections connections" >&2
fi

cargo build --release --workspace
target=${CARGO_TARGET_DIR:-target}/release
echo "million.sh: $connections connections, $shards shards, RLIMIT_NOFILE $nofile" >&2

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
"$target/drumline-bench" million --server "$target/drumline" \
    --connections "$connections" --shards "$shards" "${options[@]}" | tee "$output" || status=$?
result=$(tail -n 1 "$output")
if [[ -f $result ]]; then
    plots=${CARGO_TARGET_DIR:-target}/million
    "$target/drumline-bench" export "$result" --out "$plots" >/dev/null
    echo "plot: $plots/plot.svg"
fi
exit "$status"
