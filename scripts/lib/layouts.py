"""What clang says of the declarations in C headers. Imported by scripts, not run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

LAYOUT_LINE = re.compile(r"^ *(\d+(?::\d+-\d+)?) \| ( *)(.*?) *$")
LAYOUT_SIZE = re.compile(r"^ *\| +\[sizeof=(\d+), align=(\d+)\]")
UNNAMED = re.compile(r"\((?:anonymous|unnamed)[^)]*\)")


class CompilerError(Exception):
    """A source does not compile, or there is no compiler; with a message."""


def compiler():
    """The toolchain's clang: beside swift, or in PATH."""
    swift = shutil.which("swift")
    program = swift and shutil.which("clang", path=str(Path(swift).resolve().parent)) or shutil.which("clang")
    if not program:
        raise CompilerError("clang is missing: it is part of the Swift toolchain, whose bin directory must be in PATH")
    return program


def clang(text, *arguments):
    """Runs the toolchain's clang over a text, and returns what it prints."""
    done = subprocess.run([compiler(), "-x", "c", "-std=gnu11", *arguments, "-"], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise CompilerError(done.stderr)
    return done.stdout


def layouts(text, *arguments):
    """Every complete struct and union of a text: name -> (fields as "OFFSET TYPE NAME", size).

    Members of unnamed structs count as members of the enclosing struct; named structs have their own entry.
    """
    found = {}
    for block in clang(text, *arguments, "-fsyntax-only", "-Xclang", "-fdump-record-layouts-complete").split("*** Dumping"):
        name, fields, size, hidden = None, [], None, None
        for line in block.splitlines():
            if match := LAYOUT_SIZE.match(line):
                size = int(match[1])
            elif match := LAYOUT_LINE.match(line):
                offset, depth, text = match[1], len(match[2]), match[3]
                if name is None:
                    name = text
                    continue
                if hidden is not None and depth > hidden:
                    continue
                unnamed = UNNAMED.search(text)
                hidden = None if unnamed else depth
                text = UNNAMED.sub("(unnamed)", text).split("::")[-1] if unnamed else text
                fields.append(f"{offset} {'  ' * (depth // 2 - 1)}{text}")
        if name and size is not None and "(" not in name:
            found[name] = (fields, size)
    return found


def tree(text, *arguments):
    """The declarations of a text as the compiler's syntax tree."""
    return json.loads(clang(text, *arguments, "-fsyntax-only", "-Xclang", "-ast-dump=json"))["inner"]


def enumerators(node):
    """The constants of an enum, as name -> value."""
    values, value = {}, -1
    for constant in node.get("inner", []):
        if constant["kind"] != "EnumConstantDecl":
            continue
        written = [part for part in constant.get("inner", []) if part["kind"] != "FullComment"]
        # The value is at the constant expression, which may be below conversions.
        while written and "value" not in written[0]:
            written = written[0]["inner"]
        value = int(written[0]["value"]) if written else value + 1
        values[constant["name"]] = value
    return values
