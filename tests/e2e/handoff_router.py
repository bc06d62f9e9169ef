# SPDX-License-Identifier: Apache-2.0
"""handoff_router.py - a router that hands TCP connections over to a VM, as somebody would write it from the protocol alone:

On a connection to the door's unix socket, any number of times: u32 big-endian length of a prefix, the prefix (1 byte to
1 MiB), and with them exactly one connected TCP socket as SCM_RIGHTS. The descriptor may ride on the length or on the prefix.
"""
import array
import contextlib
import os
import socket
import struct
import threading

import lib


def connect_unix(path, timeout=lib.LIMIT):
    """A connected unix stream socket; its path may be longer than an address has room for."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    return sock


def send(sock, data, descriptors=()):
    """sendmsg until all of @data is out; the descriptors ride on its first byte."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = sock.sendmsg([data], rights)
    if sent < len(data):
        sock.sendall(data[sent:])


WAYS = ("length", "prefix", "one")  # two sendmsgs, the descriptor on the first or the second; or all in one


def hand_over(door, descriptor, prefix, way="one"):
    """One connection and what was read from it."""
    length = struct.pack(">I", len(prefix))
    if way == "one":
        send(door, length + prefix, [descriptor])
    elif way == "length":
        send(door, length, [descriptor])
        send(door, prefix)
    else:
        send(door, length)
        send(door, prefix, [descriptor])


class Router:
    """Accepts on a port of 127.0.0.1, reads the first bytes of each connection, hands it over, and forgets it."""

    def __init__(self, path, ways=WAYS, first=1 << 16):
        self.door, self.ways, self.first, self.count, self.failed = connect_unix(path), ways, first, 0, []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.route(client)

    def route(self, client):
        try:
            prefix = client.recv(self.first)
            if prefix:
                hand_over(self.door, client.fileno(), prefix, self.ways[self.count % len(self.ways)])
                self.count += 1
        except OSError as e:
            self.failed.append(e)
        finally:
            client.close()  # the door has its own descriptor

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        self.door.close()
