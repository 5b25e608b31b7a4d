"""Runs a command and records every change that it makes to the files under a folder.

Usage: recorder.py [--ignore-syncs] [--continue] FOLDER LOG COMMAND...

Owns the supervision: the kernel hands each call of the filter in calls.py to this process (seccomp's user
notification), which carries out the call itself, one at a time, and appends it to the log before the command sees the
result. So the order of the log is the order of the changes, whichever thread made them and whichever library made the
call: tempfile, for one, renames by raw system calls that a preloaded library cannot see. Never guesses: a call on the
folder that the recorder does not understand fails with EOPNOTSUPP, and a record "refused" makes the recording invalid.

A sync returns at once: the log says what a disk would have to keep, so the real disk need not. With --ignore-syncs it
is not recorded either, as on a machine whose fsync does nothing. A log begins with what is in the folder, as durable.
With --continue the log goes on where an earlier command ended on the same folder, and what is there is as durable as
the log says: the earlier command was killed, and the machine was not.

Prints the ID of the command's process as the first line, and ends with the command's status.
"""

import argparse
import errno
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import sys

import calls
from records import Log

AT_FDCWD, AT_REMOVEDIR, RENAME_NOREPLACE = 0xFFFFFF9C, 0x200, 1
RECEIVE, SEND, IS_VALID, ADD_DESCRIPTOR = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
ADD_AND_SEND = 2
SYS_PIDFD_GETFD = 438
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
PAGE = 4096


class Unknown(Exception):
    """A call on the folder that the recorder does not understand."""


class Recorder:
    def __init__(self, folder, log, ignores_syncs, child, listener):
        self.folder = folder
        self.log = log
        self.ignores_syncs = ignores_syncs
        self.child = child
        self.listener = listener
        self.process = os.pidfd_open(child)
        self.memory = None

    # --- what the command passed -----------------------------------------------------------------

    def bytes_at(self, address, length):
        if length == 0:
            return b""
        data = os.pread(self.memory, length, address) if self.memory else b""
        if not data:
            # The memory that was open ended when the process began another program.
            if self.memory:
                os.close(self.memory)
            self.memory = os.open(f"/proc/{self.child}/mem", os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self.memory, length, address)
        if len(data) != length:
            raise OSError(errno.EFAULT, "bytes of the command")
        return data

    def text_at(self, address):
        # The page behind a string may not be mapped.
        data = self.bytes_at(address, PAGE - address % PAGE)
        while b"\0" not in data:
            data += self.bytes_at(address + len(data), PAGE)
        return os.fsdecode(data[: data.index(b"\0")])

    def vectors(self, address, count):
        pairs = struct.iter_unpack("=QQ", self.bytes_at(address, 16 * count))
        return b"".join(self.bytes_at(base, length) for base, length in pairs)

    def path(self, folder, address):
        """The absolute path of a name that the command gave, relative to a descriptor of a folder."""
        name = self.text_at(address)
        number = folder & 0xFFFFFFFF
        if not name.startswith("/"):
            link = "cwd" if number == AT_FDCWD else f"fd/{number}"
            name = os.path.join(os.readlink(f"/proc/{self.child}/{link}"), name)
        return self.resolved(name)

    def resolved(self, path):
        """The path behind a name through one of the command's own descriptors."""
        if not path.startswith("/proc/self/"):
            return os.path.normpath(path)
        folder, name = os.path.split(path.replace("self", str(self.child), 1))
        return os.path.join(os.path.realpath(folder), name)

    def is_inside(self, path):
        return path == self.folder or path.startswith(self.folder + "/")

    def inside(self, *paths):
        """Are the paths in the folder? A call on one inside and one outside is not understood."""
        found = [self.is_inside(path) for path in paths]
        if any(found) and not all(found):
            raise Unknown
        return all(found)

    def holds(self, number):
        """Is the descriptor open on a file in the folder?"""
        try:
            path = os.readlink(f"/proc/{self.child}/fd/{number & 0xFFFFFFFF}")
        except FileNotFoundError:
            return False
        return self.is_inside(path.removesuffix(" (deleted)"))

    def borrow(self, number):
        """A duplicate of the command's descriptor: it shares the position and the flags."""
        return calls.system_call(SYS_PIDFD_GETFD, self.process, number & 0xFFFFFFFF, 0)

    # --- records ---------------------------------------------------------------------------------

    def place(self, path):
        """The parent's inode and the name."""
        return {"parent": os.stat(os.path.dirname(path)).st_ino, "name": os.path.basename(path)}

    def note_entry(self, path):
        """Records an entry of a folder with what it has, as durable: it was there before."""
        status = os.lstat(path)
        if os.path.isdir(path):
            self.log.append("base", ino=status.st_ino, type="folder", **self.place(path))
            for name in sorted(os.listdir(path)):
                self.note_entry(os.path.join(path, name))
        elif stat.S_ISSOCK(status.st_mode):
            self.log.append("base", ino=status.st_ino, type="socket", **self.place(path))
        else:
            with open(path, "rb") as file:
                data = file.read().rstrip(b"\0")
            self.log.append("base", data, ino=status.st_ino, type="file", size=status.st_size, **self.place(path))

    def note_folder(self):
        self.log.append("begin", ino=os.stat(self.folder).st_ino)
        for name in sorted(os.listdir(self.folder)):
            self.note_entry(os.path.join(self.folder, name))

    # --- the calls: each returns the call's result, or None for a call on another folder ----------

    def write_data(self, number, at, data):
        descriptor = self.borrow(number)
        try:
            if at is None:
                written = os.write(descriptor, data)
                start = os.lseek(descriptor, 0, os.SEEK_CUR) - written
            else:
                start, written = at, os.pwrite(descriptor, data, at)
            self.log.append("write", data[:written], ino=os.fstat(descriptor).st_ino, at=start)
            return written
        finally:
            os.close(descriptor)

    def do_write(self, number, address, length, *_):
        if self.holds(number):
            return self.write_data(number, None, self.bytes_at(address, length))

    def do_pwrite64(self, number, address, length, at, *_):
        if self.holds(number):
            return self.write_data(number, at, self.bytes_at(address, length))

    def do_writev(self, number, address, count, *_):
        if self.holds(number):
            return self.write_data(number, None, self.vectors(address, count))

    def do_pwritev(self, number, address, count, at, *_):
        if self.holds(number):
            return self.write_data(number, at, self.vectors(address, count))

    def do_ftruncate(self, number, size, *_):
        if self.holds(number):
            descriptor = self.borrow(number)
            try:
                os.ftruncate(descriptor, size)
                self.log.append("size", ino=os.fstat(descriptor).st_ino, size=size)
                return 0
            finally:
                os.close(descriptor)

    def sync(self, number, data_only):
        if not self.holds(number):
            return None
        if not self.ignores_syncs:
            inode = os.stat(f"/proc/{self.child}/fd/{number & 0xFFFFFFFF}").st_ino
            self.log.append("sync", ino=inode, data_only=data_only)
        return 0

    def do_fsync(self, number, *_):
        return self.sync(number, False)

    def do_fdatasync(self, number, *_):
        return self.sync(number, True)

    def open_file(self, notification, path, flags, mode):
        """Opens a file for the command, and puts the descriptor into its table."""
        if not self.inside(path):
            return None
        if flags & (os.O_DSYNC | calls.O_TMPFILE_BIT & ~os.O_DIRECTORY):
            raise Unknown
        existed = os.path.lexists(path)
        descriptor = os.open(path, flags | os.O_CLOEXEC, mode & 0o7777)
        try:
            status = os.fstat(descriptor)
            if not existed:
                self.log.append("create", ino=status.st_ino, type="file", **self.place(path))
            elif flags & os.O_TRUNC:
                self.log.append("size", ino=status.st_ino, size=0)
            answer = struct.pack("=QIIII", notification, ADD_AND_SEND, descriptor, 0, flags & os.O_CLOEXEC)
            fcntl.ioctl(self.listener, ADD_DESCRIPTOR, answer)
        finally:
            os.close(descriptor)
        return "sent"

    def make_folder(self, path, mode):
        if self.inside(path):
            os.mkdir(path, mode)
            self.log.append("create", ino=os.stat(path).st_ino, type="folder", **self.place(path))
            return 0

    def do_mkdir(self, address, mode, *_):
        return self.make_folder(self.path(AT_FDCWD, address), mode)

    def do_mkdirat(self, folder, address, mode, *_):
        return self.make_folder(self.path(folder, address), mode)

    def do_bind(self, number, address, length, *_):
        """Binds the command's socket; one with a path is an entry of a folder."""
        family, name = struct.unpack(f"=H{length - 2}s", self.bytes_at(address, length))
        name = os.fsdecode(name.split(b"\0")[0])
        if family != socket.AF_UNIX or not name.startswith("/"):
            return None  # The comparison finds a relative path.
        path = self.resolved(name)
        if self.inside(path):
            with socket.socket(fileno=self.borrow(number)) as ours:
                ours.bind(name.replace("/proc/self/", f"/proc/{self.child}/", 1))
            self.log.append("create", ino=os.lstat(path).st_ino, type="socket", **self.place(path))
            return 0

    def remove(self, path, is_folder):
        if self.inside(path):
            place = self.place(path)
            (os.rmdir if is_folder else os.unlink)(path)
            self.log.append("remove", **place)
            return 0

    def do_unlink(self, address, *_):
        return self.remove(self.path(AT_FDCWD, address), False)

    def do_rmdir(self, address, *_):
        return self.remove(self.path(AT_FDCWD, address), True)

    def do_unlinkat(self, folder, address, flags, *_):
        return self.remove(self.path(folder, address), bool(flags & AT_REMOVEDIR))

    def move(self, old, new, flags=0):
        if not self.inside(old, new):
            return None
        if flags & ~RENAME_NOREPLACE or os.path.dirname(old) != os.path.dirname(new):
            raise Unknown
        if flags and os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, new)
        place = self.place(old)
        os.rename(old, new)
        self.log.append("rename", **place, new_name=os.path.basename(new))
        return 0

    def do_rename(self, old, new, *_):
        return self.move(self.path(AT_FDCWD, old), self.path(AT_FDCWD, new))

    def do_renameat(self, old_folder, old, new_folder, new, *_):
        return self.move(self.path(old_folder, old), self.path(new_folder, new))

    def do_renameat2(self, old_folder, old, new_folder, new, flags, *_):
        return self.move(self.path(old_folder, old), self.path(new_folder, new), flags)

    # --- calls that are not understood on the folder ----------------------------------------------

    def refuse_descriptors(self, *numbers):
        if any(map(self.holds, numbers)):
            raise Unknown

    def refuse_paths(self, *paths):
        if any(map(self.is_inside, paths)):
            raise Unknown

    def do_pwritev2(self, number, *_):
        self.refuse_descriptors(number)

    def do_fallocate(self, number, *_):
        self.refuse_descriptors(number)

    def do_sendfile(self, number, *_):
        self.refuse_descriptors(number)

    def do_splice(self, _from, _offset, number, *_):
        self.refuse_descriptors(number)

    do_copy_file_range = do_splice

    def do_ioctl(self, number, *_):
        self.refuse_descriptors(number)

    def do_syncfs(self, number, *_):
        self.refuse_descriptors(number)

    def do_sync(self, *_):
        raise Unknown

    def do_mmap(self, _address, _length, _protection, _flags, number, *_):
        self.refuse_descriptors(number)

    def do_truncate(self, address, *_):
        self.refuse_paths(self.path(AT_FDCWD, address))

    do_mknod = do_truncate

    def do_openat2(self, folder, address, *_):
        self.refuse_paths(self.path(folder, address))

    do_mknodat = do_openat2

    def do_link(self, old, new, *_):
        self.refuse_paths(self.path(AT_FDCWD, old), self.path(AT_FDCWD, new))

    def do_linkat(self, old_folder, old, new_folder, new, *_):
        self.refuse_paths(self.path(old_folder, old), self.path(new_folder, new))

    def do_symlink(self, _target, new, *_):
        self.refuse_paths(self.path(AT_FDCWD, new))

    def do_symlinkat(self, _target, folder, new, *_):
        self.refuse_paths(self.path(folder, new))

    # --- the loop --------------------------------------------------------------------------------

    def carry_out(self, notification, name, arguments):
        if name == "open":
            return self.open_file(notification, self.path(AT_FDCWD, arguments[0]), *arguments[1:3])
        if name == "openat":
            return self.open_file(notification, self.path(*arguments[:2]), *arguments[2:4])
        if name == "creat":
            flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
            return self.open_file(notification, self.path(AT_FDCWD, arguments[0]), flags, arguments[1])
        return getattr(self, f"do_{name}")(*arguments)

    def answer(self, notification, value, error, flags=0):
        try:
            fcntl.ioctl(self.listener, SEND, struct.pack("=QqiI", notification, value, error, flags))
        except FileNotFoundError:
            pass  # The thread was killed while it waited.

    def waits(self, notification):
        """Does the thread still wait for its call? One that was killed meanwhile does not."""
        try:
            fcntl.ioctl(self.listener, IS_VALID, struct.pack("=Q", notification))
        except FileNotFoundError:
            return False
        return True

    def step(self):
        try:
            received = fcntl.ioctl(self.listener, RECEIVE, bytes(NOTIFICATION.size))
        except FileNotFoundError:
            return  # The thread was killed before this process received its call.
        notification, thread, _, number, _, _, *arguments = NOTIFICATION.unpack(received)
        name = calls.NAME_OF[number]
        try:
            if not os.path.exists(f"/proc/{self.child}/task/{thread}"):
                if not self.waits(notification):
                    return
                raise Unknown  # A thread of another process.
            result = self.carry_out(notification, name, arguments)
        except Unknown:
            self.log.append("refused", call=name, arguments=arguments)
            self.answer(notification, 0, -errno.EOPNOTSUPP)
        except OSError as error:
            self.answer(notification, 0, -error.errno)
        else:
            if result is None:
                self.answer(notification, 0, 0, 1)  # The kernel carries out the call.
            elif result != "sent":
                self.answer(notification, result, 0)

    def run(self):
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        while True:
            try:
                events = poll.poll()
            except InterruptedError:
                continue
            if events[0][1] & select.POLLIN:
                self.step()
            elif events[0][1] & select.POLLHUP:
                return  # No process is under the filter any more.


def start(command):
    """Forks the command; it begins when its filter is there. Returns the process and the filter's descriptor."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            calls.confine(theirs)
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        sys.exit("recorder.py: cannot install the filter: the kernel must be 5.19 or newer and allow seccomp")
    return child, descriptors[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ignore-syncs", action="store_true")
    parser.add_argument("--continue", dest="goes_on", action="store_true")
    parser.add_argument("folder")
    parser.add_argument("log")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    child, listener = start(options.command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    recorder = Recorder(os.path.realpath(options.folder), Log(options.log), options.ignore_syncs, child, listener)
    if not options.goes_on:
        recorder.note_folder()
    print(child, flush=True)
    recorder.run()
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


main()
