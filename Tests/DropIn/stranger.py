#!/usr/bin/env python3
"""Connects to the slots of another user's soft devices: each must end the connection without a byte or a descriptor.

    stranger.py UID
"""

import socket
import sys

found = 0
for slot in range(256):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(60)
    try:
        connection.connect(f"\0swift-rdma-soft-{sys.argv[1]}-{slot}")
    except ConnectionRefusedError:
        continue
    found += 1
    try:
        data, descriptors, _, _ = socket.recv_fds(connection, 65536, 16)
    except ConnectionResetError:
        data, descriptors = b"", []
    if data or descriptors:
        sys.exit(f"slot {slot} sent {len(data)} bytes and {len(descriptors)} descriptors")
if not found:
    sys.exit("there is no slot")
print(f"stranger: {found} slots refuse")
