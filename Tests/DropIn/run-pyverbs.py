#!/usr/bin/env python3
"""Runs rdma-core's own tests of libibverbs (pyverbs) over a device, unchanged, from the distribution's package.

    run-pyverbs.py DEVICE TESTS MUST-PASS

TESTS is the folder of the package, MUST-PASS a file with one test a line that has to pass. A line may end with `#` and a
reason: then the test does not pass, and has to go on failing, so that the list stays true. Other tests may be skipped, for
the reason that they give, and may not fail. Tests of mlx5 and efa devices and of the kernel's rdma_cm are not run.
"""

import collections
import gzip
import os
import shutil
import sys
import tempfile
import unittest

OTHERS = ("mlx5", "efa", "rdmacm", "cuda", "relaxed_ordering_cm")


class Result(unittest.TextTestResult):
    """Keeps the names of the tests that pass."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passed = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.add(test.id())


def unpacked(folder, work):
    """A copy of the tests, in which Debian's compressed files are as upstream."""
    copy = os.path.join(work, "tests")
    shutil.copytree(folder, copy)
    for name in os.listdir(copy):
        if name.endswith(".gz"):
            path = os.path.join(copy, name)
            with gzip.open(path, "rb") as packed, open(path[:-3], "wb") as plain:
                shutil.copyfileobj(packed, plain)
            os.remove(path)
    return copy


def expectations(path):
    """The tests that must pass, and those that are known to fail, with the reason."""
    passing, failing = set(), {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            name, _, reason = (part.strip() for part in line.partition("#"))
            if name and reason:
                failing[name] = reason
            elif name:
                passing.add(name)
    return passing, failing


def main():
    device, folder, list_path = sys.argv[1:]
    passing, failing = expectations(list_path)
    with tempfile.TemporaryDirectory() as work:
        copy = unpacked(folder, work)
        sys.path[:0] = [work, copy]
        from args_parser import parser
        sys.argv[1:] = ["--dev", device, "--gid", "0"]
        parser.parse_args()
        modules = sorted(
            f"tests.{name[:-3]}" for name in os.listdir(copy)
            if name.startswith("test_") and name.endswith(".py") and not any(word in name for word in OTHERS))
        suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
        result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)

    failed = {test.id() for test, _ in result.failures + result.errors}
    faults = [f"must pass, and does not: {name}" for name in sorted(passing - result.passed)]
    faults += [f"fails: {name}" for name in sorted(failed - passing - set(failing))]
    faults += [f"is listed as failing, and does not fail: {name}" for name in sorted(set(failing) - failed)]
    for reason, count in collections.Counter(reason for _, reason in result.skipped).most_common():
        print(f"skipped {count}: {reason}")
    for name, reason in sorted(failing.items()):
        print(f"known to fail: {name}: {reason}")
    print(
        f"pyverbs: {result.testsRun} tests: {len(result.passed)} passed, {len(result.skipped)} skipped, "
        f"{len(failed)} failed")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
