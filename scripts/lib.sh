# shellcheck shell=bash
# What every script here starts with; sourced, never run.
#
# After it: the working directory is the repository's root, cargo builds into the one cache of this machine, and the
# tools that `scripts/setup` installs are found. The cache lies outside the checkout, so that a fresh clone does not
# compile everything again (docs/decisions/0001-one-build-cache-and-one-profile.md).

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

STERNA_CACHE=${STERNA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sterna}
export STERNA_CACHE
export CARGO_TARGET_DIR=$STERNA_CACHE/target
# RocksDB is compiled by `scripts/setup`, once, and linked by every build
# (docs/decisions/0006-rocksdb-is-compiled-once-for-a-machine.md).
ROCKSDB_LIB_DIR=$STERNA_CACHE/rocksdb/$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/"/, ""); print $3 }' Cargo.lock)
export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
# The `sbin` directories hold `ip` and `mkfs.ext4`, and are often missing from an ordinary user's PATH.
export PATH=$STERNA_CACHE/tools/bin:$PATH:/usr/sbin:/sbin

# say TEXT…: one line of progress, on stderr, so that a script's output stays its own.
say() {
    printf '%s\n' "$*" >&2
}

# die TEXT…: says why, and ends the script with status 1.
die() {
    say "error: $*"
    exit 1
}

# have COMMAND: is there such a command?
have() {
    command -v "$1" >/dev/null 2>&1
}

# can_be_root: may `as_root` work?
can_be_root() {
    [[ $EUID -eq 0 ]] || have sudo
}

# as_root COMMAND…: runs it as root, through sudo where needed.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}
