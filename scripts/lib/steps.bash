# Steps: common functions of scripts/test, scripts/start and scripts/fuzz. Sourced, not run.
#
# A step has a name, a description and a command. Its output goes to a log; the terminal gets one line with its duration.
# The first step that fails prints its log and ends the run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=$root/.build-logs
steps_passed=()

# say TEXT…: prints one line.
say() { printf '%s\n' "$*"; }

# now_ms: the time in milliseconds, without starting a process (EPOCHREALTIME has microseconds; some locales use a
# comma).
now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    echo "${t%???}"
}

# seconds FROM_MS: the time since FROM_MS, as "12.3 s".
seconds() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# report TEXT…: prints a line of a step on the terminal if the step succeeds, such as a test runner's last line.
report() { printf '%s\n' "$*" >&3; }

# step NAME DESCRIPTION COMMAND…: runs one step, and adds its name to steps_passed or sets step_failed to it. The status
# is always 0, because a caller that tests it (`step … || …`) would disable errexit inside the step.
step_failed=
step() {
    local name=$1 description=$2 started log=$logs/$1.log reported=$logs/$1.report status=0
    shift 2
    mkdir -p "$logs"
    started=$(now_ms)
    printf '%-14s %s … ' "$name" "$description"
    set +e
    (set -e; "$@") >"$log" 2>&1 3>"$reported" </dev/null
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        say "FAILED after $(seconds "$started")"
        say "--- ${log#"$root"/}"
        cat "$log" "$reported"
        say "--- $name failed with status $status"
        step_failed=$name
        return 0
    fi
    say "$(seconds "$started")"
    sed 's/^/    /' "$reported"
    steps_passed+=("$name")
}
