"""The log of a recording: an ordered list of records, appended by several processes.

Owns the format: the length of a header, the length of a payload, the header in JSON, the payload. Never interprets a
record. One record is one write to a file that is open with O_APPEND, so the order of the records in the file is the
order in which they were appended, whichever process appended them.
"""

import json
import mmap
import os
import struct

LENGTHS = struct.Struct("<II")


class Log:
    """Appends records."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, kind, payload=b"", **fields):
        header = json.dumps({"kind": kind, **fields}).encode()
        record = LENGTHS.pack(len(header), len(payload)) + header + payload
        written = os.write(self.descriptor, record)
        assert written == len(record), f"a record of {len(record)} bytes was cut: is the disk of the log full?"


def read(path):
    """Yields the header and the payload of each record."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as whole:
            at = 0
            while at < len(whole):
                header, payload = LENGTHS.unpack_from(whole, at)
                at += LENGTHS.size
                yield json.loads(whole[at : at + header]), whole[at + header : at + header + payload]
                at += header + payload
