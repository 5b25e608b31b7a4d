"""Runs a command in which a system call fails, as where a container forbids it.

usage: without_io_uring.py CALL ERROR COMMAND...   such as: io_uring_setup EPERM drumline
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
# The same numbers on every architecture.
CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def forbid(call, error):
    """Installs the filter: load the call's number, compare, refuse or allow."""
    rules = [
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, CALLS[call]),
        (RETURN, 0, 0, ERRNO | getattr(errno, error)),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    program = Program(len(rules), code)
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ]
    for step in steps:
        if libc.prctl(*map(ctypes.c_ulong, step[:2]), *step[2:]) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


forbid(*sys.argv[1:3])
os.execv(sys.argv[3], sys.argv[3:])
