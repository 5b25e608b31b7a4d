"""Stops one thread of a process until standard input ends.

Usage: stop_thread.py TID. Prints "stopped" when the thread is stopped. SIGSTOP would stop the whole process.
"""
import ctypes
import os
import sys

SEIZE, INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

thread = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")
os.waitpid(thread, WALL)
print("stopped", flush=True)
# The thread goes on when this process ends.
sys.stdin.read()
