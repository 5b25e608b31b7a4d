#!/usr/bin/env python3
"""Runs a command under the seccomp filter of a systemd unit or of a container's profile.

usage: confined.py [--kill] FILE COMMAND...   FILE: a .service, or a profile in Docker's JSON

Compiles the filter as systemd or the container runtime does, for this machine's own architecture
(x86-64 or AArch64). With --kill a denied call ends the process, so a test sees every call that the
filter lacks. Expands the groups of a unit (@system-service) with systemd-analyze.
"""

import ctypes
import errno
import json
import os
import re
import struct
import subprocess
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, AND, RETURN, AT_LEAST = 0x20, 0x15, 0x54, 0x06, 0x35
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"],
    "aarch64": ["/usr/include/asm-generic/unistd.h"],
}
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
# Bits that clone may not have under RestrictNamespaces=yes (CLONE_NEW*).
NAMESPACES = 0x7E020080
WRITE, EXECUTE = 2, 4


def numbers():
    """Names and numbers of the system calls of this architecture."""
    for path in HEADERS[os.uname().machine]:
        if os.path.exists(path):
            text = open(path, encoding="ascii").read()
            found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
            return {name: int(number) for name, number in found}
    sys.exit("confined.py: no asm/unistd.h; install linux-libc-dev")


def expand(word):
    """Names of a group of systemd, or the name itself."""
    if not word.startswith("@"):
        return {word}
    command = ["systemd-analyze", "syscall-filter", word]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (line.strip() for line in text.splitlines()[1:])
    names = set()
    for line in lines:
        if line and not line.startswith("#"):
            names |= expand(line)
    return names


class Unit:
    """The filters of a systemd unit."""

    def __init__(self, text):
        self.settings = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
        # systemd allows these whatever the filter says.
        self.names = expand("@default") | {"execve", "exit", "exit_group", "rt_sigreturn"}
        for value in self.values("SystemCallFilter"):
            words = value.lstrip("~").split()
            for names in map(expand, words):
                if value.startswith("~"):
                    self.names -= names
                else:
                    self.names |= names
        self.denied = errno.EPERM

    def values(self, key):
        return [value for name, value in self.settings if name == key]

    def is_on(self, key):
        return self.values(key) == ["yes"]

    def families(self):
        return [FAMILIES[name] for value in self.values("RestrictAddressFamilies") for name in value.split()]


class Profile:
    """A container's seccomp profile: an allow list, and no new namespaces."""

    def __init__(self, text):
        profile = json.loads(text)
        if profile["defaultAction"] != "SCMP_ACT_ERRNO":
            sys.exit("confined.py: the profile must deny by default")
        self.denied = profile.get("defaultErrnoRet", errno.EPERM)
        self.names = set()
        conditions = []
        for rule in profile["syscalls"]:
            if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args"):
                self.names |= set(rule["names"])
            else:
                found = [(arg["op"], arg["index"], arg["value"], arg["valueTwo"]) for arg in rule.get("args", [])]
                conditions.append((rule["names"], rule["action"], rule.get("errnoRet"), found))
        masked = [("SCMP_CMP_MASKED_EQ", 0, NAMESPACES, 0)]
        wanted = [
            (["clone"], "SCMP_ACT_ALLOW", None, masked),
            (["clone3"], "SCMP_ACT_ERRNO", errno.ENOSYS, []),
        ]
        if conditions != wanted:
            sys.exit(f"confined.py: cannot compile the conditions {conditions}")

    def is_on(self, key):
        return key == "RestrictNamespaces"

    def families(self):
        return []


def compiled(rules, denial):
    """The filter as instructions."""
    known = numbers()
    deny = (RETURN, 0, 0, denial(rules.denied))
    allow = (RETURN, 0, 0, ALLOW)
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHITECTURES[os.uname().machine]), (RETURN, 0, 0, KILL)]
    code += [(LOAD, 0, 0, 0)]

    def on_call(name, block):
        """The block leaves the filter, so the number of the call stays loaded for what follows."""
        if name in known:
            code.append((EQUAL, 0, len(block), known[name]))
            code.extend(block)

    if rules.is_on("RestrictNamespaces"):
        # Its flags are in memory, which a filter cannot read. libc falls back to clone.
        on_call("clone3", [(RETURN, 0, 0, ERRNO | errno.ENOSYS)])
        on_call("clone", [(LOAD, 0, 0, 16), (AND, 0, 0, NAMESPACES), (EQUAL, 0, 1, 0), allow, deny])
    if rules.is_on("MemoryDenyWriteExecute"):
        both = [(AND, 0, 0, WRITE | EXECUTE), (EQUAL, 1, 0, WRITE | EXECUTE), allow, deny]
        on_call("mmap", [(LOAD, 0, 0, 32), *both])
        for name in ("mprotect", "pkey_mprotect"):
            on_call(name, [(LOAD, 0, 0, 32), (AND, 0, 0, EXECUTE), (EQUAL, 0, 1, 0), allow, deny])
    if families := rules.families():
        block = [(LOAD, 0, 0, 16)]
        for family in families:
            block += [(EQUAL, 0, 1, family), allow]
        on_call("socket", [*block, (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT)])
    for name in sorted(rules.names & known.keys()):
        on_call(name, [allow])
    return [*code, deny]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install(code):
    packed = b"".join(struct.pack("=HBBI", *rule) for rule in code)
    program = Program(len(code), packed)
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ]
    for step in steps:
        if libc.prctl(*map(ctypes.c_ulong, step[:2]), *step[2:]) != 0:
            sys.exit(f"confined.py: prctl: {os.strerror(ctypes.get_errno())}")


def main():
    arguments = sys.argv[1:]
    is_strict = arguments[:1] == ["--kill"]
    path, *command = arguments[is_strict:]
    text = open(path, encoding="utf-8").read()
    rules = Profile(text) if path.endswith(".json") else Unit(text)
    install(compiled(rules, lambda number: KILL if is_strict else ERRNO | number))
    os.execvp(command[0], command)


main()
