# Programs over the software device: common functions of scripts/check-dropin and scripts/check-dropin-systems. Sourced, not
# run. Builds the library and the tool, and makes a folder for temporary files.
#
#   library    the directory of the library, relative to the tree
#   verbs      the tool
#   work       the folder, removed at the end
#   port       the last TCP port that was used
#   only       texts that select pairs and jobs; empty: all

# Programs that are killed or abort on purpose leave no file.
ulimit -c 0

root=$PWD
script=$(basename "$0")
library=$(scripts/build-dropin)
verbs=$root/$(scripts/build-tool)
work=$(mktemp -d)
trap 'end_jobs; rm -rf "$work"' EXIT
port=23400
only=("$@")
passed=0
skipped=()

# end_jobs: ends what this shell has in the background. A stopped process gets SIGTERM once it continues. A subshell has to set
# the trap itself.
end_jobs() {
    local -a jobs
    mapfile -t jobs < <(jobs -p)
    [ ${#jobs[@]} -gt 0 ] || return 0
    kill -TERM "${jobs[@]}" 2>/dev/null || :
    kill -CONT "${jobs[@]}" 2>/dev/null || :
}

# fail TEXT FILE…: ends the run with a message and the files' first lines.
fail() {
    echo "$script: $1" >&2
    shift
    [ $# -eq 0 ] || head -n 40 "$@" >&2
    exit 1
}

# pass NAME, skip NAME REASON: count a test.
pass() {
    passed=$((passed + 1))
    echo "passed: $1"
}
skip() {
    skipped+=("$1: $2")
    echo "skipped: $1: $2"
}

# summary TEXT: prints the skipped tests, and as the last line the numbers and the text.
summary() {
    local reasons=
    [ $((passed + ${#skipped[@]})) -gt 0 ] || fail "nothing matches: ${only[*]}"
    [ ${#skipped[@]} -eq 0 ] || reasons=$(printf '; %s' "${skipped[@]}")
    echo "$script: $((passed + ${#skipped[@]})) tests: $passed passed, ${#skipped[@]} skipped$reasons$1"
}

# compile PROGRAM OPTION…: builds a program of Tests/DropIn.
compile() {
    local name=$1
    shift
    ${CC:-cc} -std=gnu11 -O1 -g -Wall -Wextra -Werror -o "$work/$name" "Tests/DropIn/$name.c" "$@"
}

# distribution: the path of the distribution's library.
distribution=$(env -i /sbin/ldconfig -p | sed -n 's/.*libibverbs\.so\.1 .*x86-64.* => //p; s/.*libibverbs\.so\.1 .*AArch64.* => //p' |
    head -n 1)

# has COMMAND: whether it is installed. scripts/bootstrap --tests installs all of them on Debian; Debian 13 has no dapl.
has() { command -v "$1" >/dev/null; }

# soon COMMAND…: succeeds once the command does, within a limit that only a hang reaches.
soon() {
    local _
    for _ in {1..2400}; do
        ! "$@" || return 0
        sleep 0.05
    done
    return 1
}

# has_sockets OPTION…: whether ss(8) lists a TCP socket.
has_sockets() { [[ $(ss --tcp --numeric --no-header "$@") != "" ]]; }

# contains FILE TEXT: whether the file contains the text. The shell of a job in the background makes its file.
contains() { [[ -e $1 && $(<"$1") == *"$2"* ]]; }

# is_listening PORT: succeeds once a process listens on the TCP port.
is_listening() { soon has_sockets --listening "sport = :$1"; }

# is_connected PORT: succeeds once a client of the TCP port is connected.
is_connected() { soon has_sockets "sport = :$1"; }

# says FILE TEXT: succeeds once the file contains the text.
says() { soon contains "$@"; }

# is_wanted COMMAND…: succeeds if the arguments of the script select the command.
is_wanted() {
    local text
    [ ${#only[@]} -gt 0 ] || return 0
    for text in "${only[@]}"; do [[ "$*" != *"$text"* ]] || return 0; done
    return 1
}

# What pair puts before the program: a command that runs the rest as another user or in a container; verbs run; a tool that
# runs the program; and what it puts before the name.
before=()
run=("$verbs" run --)
around=()
pair_name=

# pair PROGRAM ARGUMENT…: runs a server and a client of the program, each with a limit that only a hang reaches. Both must
# exit with status 0.
pair() {
    local server status=0
    port=$((port + 1))
    is_wanted "$pair_name$*" || return 0
    timeout --kill-after=10 120 "${before[@]}" "${run[@]}" "${around[@]}" "$@" -p $port >"$work/server" 2>&1 &
    server=$!
    is_listening $port || fail "$pair_name$*: the server does not listen" "$work/server"
    timeout --kill-after=10 120 "${before[@]}" "${run[@]}" "${around[@]}" "$@" -p $port 127.0.0.1 >"$work/client" 2>&1 ||
        status=$?
    [ $status -eq 0 ] || fail "$pair_name$*: the client ended with status $status" "$work/client" "$work/server"
    wait $server || fail "$pair_name$*: the server ended with status $?" "$work/server" "$work/client"
    pass "$pair_name$*"
}

# job NAME TEXT COMMAND…: runs a job under verbs run; its output must contain the text.
job() {
    local name=$1 text=$2 status=0
    shift 2
    timeout --kill-after=10 300 "$verbs" run -- "$@" >"$work/output" 2>&1 || status=$?
    [ $status -eq 0 ] || fail "$name: status $status" "$work/output"
    [[ $(<"$work/output") == *"$text"* ]] || fail "$name: its output lacks: $text" "$work/output"
    pass "$name"
}

# ends STATUS TEXT COMMAND…: the command must end with the status, and its output must contain the text. A test of several
# such commands counts with `pass`.
ends() {
    local wanted=$1 text=$2 status=0
    shift 2
    timeout --kill-after=10 120 "$@" >"$work/output" 2>&1 || status=$?
    [ $status -eq "$wanted" ] || fail "$*: status $status, not $wanted" "$work/output"
    [[ $(<"$work/output") == *"$text"* ]] || fail "$*: its output lacks: $text" "$work/output"
}
