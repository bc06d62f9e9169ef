# SPDX-License-Identifier: Apache-2.0
"""wire.py - what the two ends of a lab's control channel say to each other.

The channel is one virtio-serial port: a byte stream with flow control, apart from the console. A frame is a header (payload
size, kind, number of the command) and its payload. The host sends RUN (a JSON object: argv, cwd, env), STDIN (an empty
one is its end) and SIGNAL; the lab sends HELLO once, then per command STDOUT, STDERR and last EXIT, whose payload is the
status as wait(2) has it. Output travels as it is made, so what a command said is on the host also when the lab dies.
"""
import struct

HELLO, RUN, STDIN, SIGNAL, STDOUT, STDERR, EXIT = range(1, 8)
HEADER = struct.Struct("<IBxH")
CHUNK = 32 * 1024


def frame(kind, command=0, payload=b""):
    return HEADER.pack(len(payload), kind, command) + payload


class Reader:
    """Cuts a byte stream into frames."""

    def __init__(self):
        self.pending = bytearray()

    def feed(self, data):
        """Take @data; the frames that are whole now, as (kind, command, payload)."""
        self.pending += data
        while len(self.pending) >= HEADER.size:
            size, kind, command = HEADER.unpack_from(self.pending)
            if len(self.pending) < HEADER.size + size:
                return
            payload = bytes(self.pending[HEADER.size:HEADER.size + size])
            del self.pending[:HEADER.size + size]
            yield kind, command, payload
