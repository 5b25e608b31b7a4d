"""System calls that the recorder supervises, and the seccomp filter that hands them to it.

Owns the numbers of the calls and the filter. Never looks at a path: a filter sees numbers alone, so calls on other
folders are handed over as well, and the recorder lets them pass. Every call by which a process changes the content or
the names of files is in the list, except those of io_uring and writable shared mappings that were private before; the
comparison of the rebuilt folder with the real one finds the effect of those.
"""

import ctypes
import os
import socket
import struct

# Numbers on x86-64 and on AArch64, which lacks the older calls.
NUMBERS = {
    "write": (1, 64), "pwrite64": (18, 68), "writev": (20, 66), "pwritev": (296, 70), "pwritev2": (328, 287),
    "open": (2, None), "creat": (85, None), "openat": (257, 56), "openat2": (437, 437),
    "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33), "bind": (49, 200),
    "fsync": (74, 82), "fdatasync": (75, 83), "sync": (162, 81), "syncfs": (306, 267),
    "sendfile": (40, 71), "splice": (275, 76), "copy_file_range": (326, 285), "ioctl": (16, 29), "mmap": (9, 222),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
COLUMN, ARCHITECTURE = MACHINES[os.uname().machine]
NUMBER_OF = {name: numbers[COLUMN] for name, numbers in NUMBERS.items() if numbers[COLUMN] is not None}
NAME_OF = {number: name for name, number in NUMBER_OF.items()}

O_TMPFILE_BIT = 0o20000000
FLAGS = os.O_CREAT | os.O_TRUNC | O_TMPFILE_BIT | os.O_DSYNC
PROT_WRITE, MAP_SHARED = 2, 1
CLONES = (0x40049409, 0x4020940D)  # FICLONE, FICLONERANGE
# Calls that concern the recorder only with these arguments: the index of an argument, and bits of which one is set.
MASKS = {"open": [(1, FLAGS)], "openat": [(2, FLAGS)], "mmap": [(2, PROT_WRITE), (3, MAP_SHARED)]}

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 8, 32
PR_SET_NO_NEW_PRIVS = 38
LOAD, EQUAL, HAS_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, NOTIFY, KILL = 0x7FFF0000, 0x7FC00000, 0x80000000

libc = ctypes.CDLL(None, use_errno=True)


def argument(index):
    """Loads the lower half of an argument."""
    return (LOAD, 0, 0, 16 + 8 * index)


def instructions():
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHITECTURE), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for name, number in NUMBER_OF.items():
        block = []
        for index, mask in MASKS.get(name, []):
            block += [argument(index), (HAS_BITS, 1, 0, mask), (RETURN, 0, 0, ALLOW)]
        if name == "ioctl":
            block += [argument(1), (EQUAL, 2, 0, CLONES[0]), (EQUAL, 1, 0, CLONES[1]), (RETURN, 0, 0, ALLOW)]
        block.append((RETURN, 0, 0, NOTIFY))
        code += [(EQUAL, 0, len(block), number), *block]
    return [*code, (RETURN, 0, 0, ALLOW)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def system_call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def confine(channel):
    """Puts this process under the filter, and sends the descriptor of the notifications through the channel."""
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions())
    program = Program(len(packed) // 8, packed)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    flags = NEW_LISTENER | WAIT_KILLABLE
    listener = system_call(SYS_SECCOMP, SET_MODE_FILTER, flags, ctypes.addressof(program))
    socket.send_fds(channel, [b"x"], [listener])
