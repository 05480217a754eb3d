# Steps: what scripts/test, scripts/start and scripts/package have in common. Sourced, not run.
#
# A step has a name, a sentence that says what it does, and a command. Its output goes to a log; the
# terminal gets one line with the time it took. The first step that fails prints its log and ends the run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=$root/.build-logs
steps_passed=()

# say TEXT…: one line of the run's own report.
say() { printf '%s\n' "$*"; }

# now_ms: milliseconds of a clock, without a process (EPOCHREALTIME has microseconds; some locales use a comma).
now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    echo "${t%???}"
}

# seconds FROM_MS: the time since then, as "12.3 s".
seconds() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# report TEXT…: a line that a step wants on the terminal when it succeeds (a test runner's closing line, a figure).
report() { printf '%s\n' "$*" >&3; }

# step NAME SENTENCE COMMAND…: runs one step. Its name ends up in steps_passed or in step_failed; the status is
# always 0, because a caller that tested it (`step … || …`) would switch off errexit inside the step.
step_failed=
step() {
    local name=$1 sentence=$2 started log=$logs/$1.log reported=$logs/$1.report status=0
    shift 2
    mkdir -p "$logs"
    started=$(now_ms)
    printf '%-14s %s … ' "$name" "$sentence"
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
