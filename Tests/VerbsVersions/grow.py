"""Writes a copy of the directory `infiniband` with a verbs.h that has grown as a later version could.

    grow.py SOURCE DESTINATION

It adds a slot to struct verbs_context, a function to the extended queues, and a member to every object that a provider
returns, to attributes with a mask and to structs that are passed with their size. Every structure that chapter 1 of
rdma_provider.h lets grow grows here.
"""

import pathlib
import re
import shutil
import sys

OBJECTS = ["ibv_pd", "ibv_td", "ibv_mr", "ibv_mw", "ibv_ah", "ibv_dm", "ibv_xrcd", "ibv_srq", "ibv_comp_channel"]
QUEUES = ["ibv_qp_ex", "ibv_cq_ex"]
MASKED = ["ibv_qp_init_attr_ex", "ibv_cq_init_attr_ex", "ibv_srq_init_attr_ex", "ibv_qp_attr"]
SIZED = ["ibv_port_attr", "ibv_device_attr_ex", "ibv_gid_entry", "ibv_ece"]


def append(text, name, member):
    """Adds a member at the end of a struct."""
    match = re.search(rf"^struct {name} \{{$.*?^\}};$", text, re.MULTILINE | re.DOTALL)
    if not match:
        sys.exit(f"grow.py: verbs.h has no struct {name}")
    end = match.end() - len("};")
    return f"{text[:end]}\t{member};\n{text[end:]}"


def main():
    source, destination = map(pathlib.Path, sys.argv[1:])
    shutil.copytree(source, destination, dirs_exist_ok=True)
    header = destination / "verbs.h"
    text = header.read_text()
    front = '/*  "grows up" - new fields go here */\n'
    if front not in text:
        sys.exit("grow.py: the front of struct verbs_context is not where it was")
    text = text.replace(front, front + "\tint (*grown)(struct ibv_context *context);\n")
    for name in OBJECTS + MASKED + SIZED:
        text = append(text, name, "uint64_t grown")
    for name in QUEUES:
        text = append(text, name, "void (*grown)(void)")
    header.write_text(text)


main()
