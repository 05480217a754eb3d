"""Builds, commands over devices, and tables of results: what the scripts that try cores, providers and neighbours share.
Imported by them, not run."""

import os
import re
import subprocess


class Fault(Exception):
    """A failure that ends the run, with a message."""


def path_built(command, tree):
    """The path that a build script prints last, such as scripts/build-tool, in its tree."""
    done = subprocess.run(command, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Fault(f"{' '.join(map(str, command))} in {tree} fails with status {done.returncode}")
    return tree / done.stdout.split()[-1]


def run(command, folder=None, timeout=1800, **environment):
    """Runs a command without what the user's environment says of providers. Returns the status, -1 if it did not end within
    `timeout` seconds, and what it has printed."""
    clean = {name: value for name, value in os.environ.items() if name not in ("RDMA_DRIVER_PATH", "SYSFS_PATH")}
    try:
        done = subprocess.run(list(map(str, command)), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, env=clean | environment)
    except subprocess.TimeoutExpired:
        return -1, f"no end within {timeout} seconds"
    return done.returncode, done.stdout


def told(text, most=1):
    """The lines of an output that say why something failed, at most so many."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if re.search(r"error|fault|fail|verbs: ", line, re.IGNORECASE)]
    return "; ".join(line[:200] for line in found[:most] or lines[-1:] or ["no output"])


def print_table(rows, indent=""):
    """Prints rows of text in columns; the last column is as long as its text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print(indent + "  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[-1]]))
