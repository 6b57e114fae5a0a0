# What the scripts here share: strict mode, the top of the source tree as working directory, plain speech, installing what
# is missing, and leaving nothing behind. Read by them with `source`; not a program.
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
# Scripts find what they have built, wherever else the operator has cargo put things.
export CARGO_TARGET_DIR=$ROOT/target

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' PLAIN=''
fi
export BOLD DIM RED GREEN YELLOW CYAN PLAIN ROOT

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "${RED}${0##*/}: $*${PLAIN}" >&2; exit 1; }

# Checks are counted, and one that fails does not keep the next from being made.
PASSED=0 FAILED=0
pass() { PASSED=$((PASSED + 1)); say "  ${GREEN}ok${PLAIN}      $*"; }
fail() { FAILED=$((FAILED + 1)); say "  ${RED}FAILED${PLAIN}  $*"; }
expect() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then pass "$what"; else fail "$what"; fi
}
tally() {
    say "$PASSED passed, $FAILED failed"
    ((FAILED == 0))
}

as_root() {
    if ((EUID == 0)); then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "needs root to run: $* (there is no sudo; run it yourself, then try again)"
    fi
}

# Installs Debian packages; the lists are fetched once per run, since a fresh machine has none.
install_packages() {
    command -v apt-get >/dev/null || die "cannot install $*: no apt-get here; install it by hand"
    say "${DIM}installing $*${PLAIN}"
    [[ -n ${APT_LISTS_FRESH:-} ]] || as_root apt-get update -qq >/dev/null
    export APT_LISTS_FRESH=1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE...: installs the packages where the command is missing.
need() {
    command -v "$1" >/dev/null || install_packages "${@:2}"
}

# A directory of our own that is gone when the script ends, after every process started with `spawn` has ended.
WORK=''
SPAWNED=()
workspace() {
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/wemixvisor-${0##*/}.XXXXXX")
    trap leave EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
spawn() { # LOG COMMAND...
    local log=$1
    shift
    : >"$log" # there at once, for who wants to follow it
    "$@" >>"$log" 2>&1 &
    SPAWNED+=($!)
}
leave() {
    local code=$? pid
    trap - EXIT
    for pid in "${SPAWNED[@]}"; do
        kill -TERM "$pid" 2>/dev/null || continue
        wait "$pid" 2>/dev/null || true
    done
    if ((code != 0)) && [[ -n ${KEEP:-} ]]; then
        say "kept: $WORK"
    else
        rm -rf "$WORK"
    fi
    exit "$code"
}

# within SECONDS COMMAND...: repeats the command until it succeeds; fails when the time is up.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}
