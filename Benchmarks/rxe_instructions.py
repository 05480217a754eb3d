"""Counts the instructions of data-path calls on the kernel's rxe in the guest, for post-poll-rxe and dropin-over-rxe.

callgrind counts them, the same number in every run. The instructions of the loop around the call are measured separately
and subtracted; the write(2) of the doorbell, up to its system call, is part of the call.
"""

import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent

# In the guest: creates rxe0 on a veth interface.
CREATE_RXE = """
ip link add veth0 type veth peer name eth0
ip address add 10.9.0.1/24 dev veth0
ip link set eth0 up
ip link set veth0 up
rdma link add rxe0 type rxe netdev veth0
until cat /sys/class/infiniband/rxe0/ports/1/gids/* | grep -q ffff:0a09:0001; do sleep 0.1; done
"""

# In the guest: runs the program and prints callgrind's counts.
COUNT = """
rm -f /dev/shm/counted*
{front} valgrind -q --tool=callgrind --collect-atstart=no --callgrind-out-file=/dev/shm/counted {program} {provider}
echo "counted {side}"
grep -hE '^(desc: Trigger|totals)' /dev/shm/counted.*
"""


def build_program():
    """Builds the program in C that makes the calls; returns its path."""
    program = ROOT / "Benchmarks/.build/post-poll-rxe"
    program.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Werror", "-I", ROOT / "Sources/CProviderABI/include",
         ROOT / "Benchmarks/Sources/CPostPoll/post-poll-rxe.c", "-libverbs", "-ldl", "-o", program], check=True)
    return program


def count_command(side, program, provider, front=()):
    """The commands for sh that count the calls of a provider, or of libibverbs, under the name `side`."""
    return COUNT.format(
        side=side, program=shlex.quote(str(program)), provider=shlex.quote(str(provider)),
        front=shlex.join(map(str, front)))


def per_call(log):
    """From the output of count_command: the instructions by side and call, and the calls in the order of the program."""
    counts, side, dump = {}, None, None
    for line in log.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"counted (\S+)", line):
            side = match[1]
        elif match := re.fullmatch(r"desc: Trigger: Client Request: (\w+) (\S+)", line):
            dump = (side, match[1], match[2])
        elif (match := re.fullmatch(r"totals: (\d+)", line)) and dump:
            counts[dump] = int(match[1])
            dump = None
    rounds = re.search(r"^rounds (\d+)", log, re.MULTILINE)
    if not rounds or not counts:
        raise SystemExit(f"callgrind printed no counts in the guest; the output was:\n{log}")
    source = (ROOT / "Benchmarks/Sources/CPostPoll/side.h").read_text()
    names = re.findall(r'^\t\{"([\w-]+)"', source, re.MULTILINE)
    sides = {side for side, *_ in counts}
    return {(side, name): (counts[side, "call", name] - counts[side, "none", name]) / int(rounds[1])
            for side in sides for name in names}, names
