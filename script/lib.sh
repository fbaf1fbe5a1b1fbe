# Shared by script/test, script/demo and script/bench. POSIX sh; needs Python >= 3.11 and nothing else.
#
# GOSSIPFL_PYTHON=python3.13 picks the interpreter of a new venv, GOSSIPFL_VENV=DIR its place.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=${GOSSIPFL_VENV:-$root/.venv}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 3
}

# Can this interpreter run us (exit 0), lacks only venv (2), or is no good (1)?
probe() {
    "$1" -c 'import sys
if sys.version_info < (3, 11) or sys.maxsize < 2**32: sys.exit(1)
import sqlite3, ssl
try:
    import ensurepip, venv
except ImportError:
    sys.exit(2)' >/dev/null 2>&1
}

# The newest python3.1x that works. A shim without a version behind it does not count.
find_python() {
    without_venv=
    for candidate in ${GOSSIPFL_PYTHON:-python3.15 python3.14 python3.13 python3.12 python3.11 python3}; do
        status=0
        probe "$candidate" || status=$?
        case $status in
        0)
            python=$candidate
            return
            ;;
        2) [ -n "$without_venv" ] || without_venv=$candidate ;;
        esac
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        fail "$without_venv has no venv module: sudo apt-get install $version-venv"
    fi
    fail "Python 3.11 or newer (64-bit) is needed and was not found: sudo apt-get install python3 python3-venv"
}

# Is what is installed what pyproject.toml asks for now?
installed() {
    [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]
}

# ensure_venv EXTRA...: a venv with gossipfl[EXTRA] in it. A warm call costs one checksum.
ensure_venv() {
    extras=$(printf '%s,' "$@")
    extras=${extras%,}
    stamp=$venv/.gossipfl-$(printf '%s' "$extras" | tr ',' '-')
    wanted=$(cksum <"$root/pyproject.toml")" $root"
    if installed; then
        return
    fi
    # Two commands started at once would install over each other: the second waits for the first.
    exec 9<"$root/pyproject.toml"
    if command -v flock >/dev/null; then
        flock 9
    fi
    if ! installed; then
        install_into_venv
    fi
    exec 9<&-
}

install_into_venv() {
    if ! probe "$venv/bin/python"; then
        find_python
        say "making $venv with $python"
        "$python" -m venv --clear "$venv" || fail "the venv could not be made; see above"
    fi
    say "installing gossipfl[$extras] (once, until pyproject.toml changes)"
    log=$venv/.gossipfl-install.log
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -e "$root[$extras]" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "the installation failed; the whole log is $log"
    fi
    printf '%s' "$wanted" >"$stamp"
}
