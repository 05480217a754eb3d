"""The versions and tags of releases, and the provider ABI of a tree. Imported by scripts, not run."""

import re
import subprocess
import sys

from trial import Fault

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:~rc(\d+))?")
# The names that the library for C programs exports.
MAP = "Sources/CDropIn/libibverbs.map"
# The file that names the baselines of the provider ABI that a release has marked.
RELEASED = "Sources/CProviderABI/abi/released"
TAG = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-rc\.(\d+))?")


def git(folder, *arguments, text=True):
    """The output of a git command in a repository."""
    done = subprocess.run(["git", "-C", folder, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=text)
    if done.returncode != 0:
        message = done.stderr if text else done.stderr.decode(errors="replace")
        raise Fault(f"git {' '.join(map(str, arguments))} fails: {message.strip()}")
    return done.stdout.rstrip("\n") if text else done.stdout


def key(match):
    """The order of versions and of tags: release candidates before their release."""
    return (*map(int, match.groups()[:3]), int(match[4]) if match[4] else sys.maxsize)


def tag_of(version):
    """The tag of a version, in the form that Swift packages need: 1.0.0-rc.1 for 1.0.0~rc1."""
    return version.replace("~rc", "-rc.")


def last_release(root, *options):
    """The tag of the last release that HEAD contains, of those that git tag lists with the options; or None. Fails in a clone
    without the tags of releases, so that nobody takes the next release for the first. HEAD itself may be the commit that marks
    the baselines, whose tag is made after it."""
    tags = [match for name in git(root, "tag", "--merged", "HEAD", *options).split() if (match := TAG.fullmatch(name))]
    if tags:
        return max(tags, key=key)[0]
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise Fault("this clone has no tag of a release, and not all commits: git fetch --tags --unshallow")
    before = [git(root, "show", f"{commit}:{RELEASED}") for commit in
              git(root, "log", "-2", "--first-parent", "--format=%h", "HEAD").split()]
    if len(before) == 2 and all(map(baselines, before)):
        raise Fault(f"this clone has no tag of a release, but {RELEASED} names baselines of one: git fetch --tags")
    return None


def exported_names(text):
    """The names that a version script such as Sources/CDropIn/libibverbs.map exports, with their nodes."""
    found, node = set(), ""
    for line in text.splitlines():
        if match := re.match(r"(\w+[\d.]+) \{", line):
            node = match[1]
        elif match := re.match(r"\t\t(\w+);", line):
            found.add(f"{match[1]}@{node}")
    return found


def baselines(text):
    """The lines of RELEASED that name a baseline."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def package_version(root):
    """The version of the first entry of debian/changelog."""
    return re.search(r"\((.+?)\)", (root / "debian/changelog").read_text())[1]


def provider_abi(root):
    """The provider ABI of a tree, as MAJOR.MINOR."""
    return subprocess.run([root / "scripts/provider-abi"], check=True, capture_output=True, text=True).stdout.strip()
