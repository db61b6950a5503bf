"""Escape attempts as a model could write them, and what watches whether any comes through.

Each attempt is Python that prints ESCAPED where it got what it must not get. `Watch` looks on from outside as well: a
secret in a file that anyone may read, in the environment and in an inherited descriptor, listeners that must stay
alone, processes and files that must not be left. After each attempt the sandbox has to run CLEAN with the same
result as when it was new.

Needs the standard library and the sandbox only, so that it also runs as a script, as another user:

    python sandbox_attacks.py NAME ...     # one line of JSON: what went wrong, by name
"""

import json
import os
import re
import secrets
import select
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from tutelage.environments.sandbox import Limits, Sandbox, open_sandbox, seccomp, watch

LIMITS = Limits(seconds=1.0, memory=96 * 2**20, processes=6, output=5000, disk=2**22, files=64)
GRACE = 6.0
"""Seconds beyond the limit that stopping and clearing up may take on a busy machine."""

PRELUDE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NR = @NUMBERS@
def works(what, attempt):
    try:
        found = attempt()
    except BaseException as error:
        print(what, "refused:", type(error).__name__, error)
    else:
        print("ESCAPED:", what, repr(found)[:200])
def call(name, *arguments):
    ctypes.set_errno(0)
    found = libc.syscall(NR[name], *arguments)
    if found == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def libc_call(name, *arguments):
    found = getattr(libc, name)(*arguments)
    if found == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
"""

CLEAN = """
import builtins, gc, json, math, os, random, resource, signal, sys, threading
try:
    others = os.kill(-1, 0)
except ProcessLookupError:
    others = "none"
def walls():
    for path in ("/usr/x", "/x", "/dev/x"):
        try:
            open(path, "w")
            yield path
        except OSError:
            pass
open("/tmp/mine", "w").write("here")
print(json.dumps([
    sorted(os.listdir("/tmp")), os.getcwd(), os.umask(0), dict(os.environ), others, list(walls()),
    [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
    sorted(dir(builtins)), sorted(sys.modules), sys.gettrace(), math.pi, sys.getrecursionlimit(),
    [str(signal.getsignal(n)) for n in (1, 2, 10, 12, 14, 15, 24, 25)], sorted(signal.pthread_sigmask(0, [])),
    [os.get_blocking(n) for n in (0, 1, 2)], os.getpriority(os.PRIO_PROCESS, 0), threading.active_count(),
    print.__module__, len(sys.argv), os.path.exists("/proc"), os.getuid(), sorted(vars(sys.modules["__main__"])),
]))
"""

ATTACKS: dict[str, str] = {}


def _add(name: str, code: str, prelude: bool = True) -> None:
    ATTACKS[name] = (PRELUDE if prelude else "") + code


def _each(prefix: str, attempts: dict[str, str]) -> None:
    """Attempts that are one expression each."""
    for name, expression in attempts.items():
        _add(f"{prefix}_{name}", f"works({name!r}, lambda: {expression})")


# files of the host
_each(
    "read",
    {
        "secret_file": "open('@SECRET_PATH@').read()",
        "shadow": "open('/etc/shadow').read()",
        "passwd": "open('/etc/passwd').read()",
        "root_home": "os.listdir('/root')",
        "homes": "os.listdir('/home')",
        "host_tmp": "os.listdir('@FOLDER@')",
        "var": "os.listdir('/var')",
        "disk_device": "open('/dev/vda', 'rb').read(1)",
        "sys": "os.listdir('/sys')",
        "kernel_memory": "open('/dev/mem', 'rb').read(1)",
        "dot_dot": "open('/tmp/../../../..@SECRET_PATH@').read()",
    },
)
_add(
    "read_through_links",
    """
os.symlink('@SECRET_PATH@', 'link'); os.symlink('/', 'top')
works('symbolic link', lambda: open('link').read())
works('link to the top', lambda: open('top@SECRET_PATH@').read())
works('hard link', lambda: os.link('@SECRET_PATH@', 'hard'))
works('hard link to a setuid binary', lambda: os.link('/usr/bin/su', 'su'))
""",
)
_add(
    "write_outside",
    """
for path in ('/usr/bin/python3', '/usr/lib/x', '/x', '/dev/null2', '/etc/x', '/bin/x', '/dev/shm/x', '/run/x'):
    works(path, lambda: open(path, 'w'))
works('chmod', lambda: os.chmod('/usr/bin', 0o777))
works('rename', lambda: os.rename('/usr', '/usr2'))
works('remove', lambda: os.remove('/bin'))
works('utime', lambda: os.utime('/usr/bin/env'))
works('replace tmp', lambda: os.rename('/tmp', '/tmp2'))
works('xattr', lambda: os.setxattr('/usr/bin/env', 'user.x', b'1'))
""",
)
# other processes
_each(
    "proc",
    {
        "environment_of_1": "open('/proc/1/environ').read()",
        "memory_of_1": "open('/proc/1/mem', 'rb').read(1)",
        "write_memory_of_1": "open('/proc/1/mem', 'r+b')",
        "root_of_1": "os.listdir('/proc/1/root')",
        "folder_of_1": "os.listdir('/proc/1/cwd')",
        "descriptors_of_1": "os.listdir('/proc/1/fd')",
        "list": "os.listdir('/proc')",
        "own_descriptors": "open('/proc/self/fd/0').read()",
        "write_sys": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
        "write_sysrq": "open('/proc/sysrq-trigger', 'w').write('b')",
        "own_oom_score": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    },
)
_each(
    "process",
    {
        "ptrace_1": "call('ptrace', 16, 1, 0, 0)",
        "ptrace_traceme": "call('ptrace', 0, 0, 0, 0)",
        "read_memory_of_1": "call('process_vm_readv', 1, 0, 0, 0, 0, 0)",
        "write_memory_of_1": "call('process_vm_writev', 1, 0, 0, 0, 0, 0)",
        "steal_descriptor_of_1": "call('pidfd_getfd', os.pidfd_open(1), 3, 0)",
        "limits_of_1": "__import__('resource').prlimit(1, 7, (0, 0))",
        "affinity_of_1": "os.sched_setaffinity(1, {0})",
        "priority_of_1": "os.setpriority(os.PRIO_PROCESS, 1, 19)",
        "scheduler_of_1": "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
        "more_priority": "os.nice(-5)",
        "real_time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "group_of_1": "os.setpgid(1, 0)",
        "limits_raised": "__import__('resource').setrlimit(6, (10000, 10000))",
        "file_size_raised": "__import__('resource').setrlimit(1, (2**40, 2**40))",
    },
)
_add(
    "signals",
    """
import signal, time
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
try:
    os.kill(-1, 9)
except ProcessLookupError:
    pass
try:
    os.killpg(1, 9)
except OSError:
    pass
for process in [os.getppid(), *range(2, 60)]:
    if process != os.getpid():
        works(f'kill {process}', lambda: os.kill(process, 9) if process > 1 else 1 / 0)
signal.pidfd_send_signal(os.pidfd_open(1), 9)
""",
)
_add("stop_itself", "import os, signal\nprint('before', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)", False)
_add(
    "ignore_signals",
    """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass
""",
    False,
)
# network
_each(
    "network",
    {
        "tcp": "__import__('socket').create_connection(('127.0.0.1', @PORT@), 1)",
        "tcp6": "__import__('socket').socket(10, 1).connect(('::1', @PORT@))",
        "udp": "__import__('socket').socket(2, 2).sendto(b'x', ('127.0.0.1', @UDP@))",
        "outside": "__import__('socket').create_connection(('1.1.1.1', 53), 1)",
        "dns": "__import__('socket').getaddrinfo('example.com', 80)",
        "host_unix_socket": "__import__('socket').socket(1, 1).connect('@UNIX@')",
        "abstract_socket": "__import__('socket').socket(1, 1).connect(b'\\0@ABSTRACT@')",
        "listen": "__import__('socket').create_server(('127.0.0.1', 0))",
        "netlink": "__import__('socket').socket(16, 3, 0)",
        "raw": "__import__('socket').socket(17, 3, 0)",
        "kernel_crypto": "__import__('socket').socket(38, 5, 0)",
        "virtual_machine_socket": "__import__('socket').socket(40, 1, 0)",
        "bluetooth_pair": "__import__('socket').socketpair(31, 1, 0)",
        "io_uring": "call('io_uring_setup', 8, ctypes.create_string_buffer(120))",
    },
)
# namespaces and rights
_each(
    "rights",
    {
        "unshare_user": "call('unshare', 0x10000000)",
        "unshare_mount": "call('unshare', 0x00020000)",
        "clone_user": "call('clone', 0x10000000 | 17, 0, 0, 0, 0)",
        "clone_network": "call('clone', 0x40000000 | 17, 0, 0, 0, 0)",
        "clone3": "call('clone3', ctypes.create_string_buffer(88), 88)",
        "enter_namespace": "call('setns', os.open('/tmp', 0), 0)",
        "mount": "libc_call('mount', b'proc', b'/tmp', b'proc', 0, None)",
        "bind_mount": "libc_call('mount', b'/', b'/tmp', None, 4096, None)",
        "remount_writable": "libc_call('mount', None, b'/', None, 32, None)",
        "unmount": "libc_call('umount2', b'/tmp', 2)",
        "new_mount_calls": "call('fsopen', b'proc', 0)",
        "open_tree": "call('open_tree', -100, b'/', 1)",
        "pivot_root": "call('pivot_root', b'/tmp', b'/tmp')",
        "chroot": "os.chroot('/tmp')",
        "setuid": "os.setuid(0)",
        "setgid": "os.setgid(0)",
        "groups": "os.setgroups([0])",
        "capabilities": "libc_call('capset', (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[2**32 - 1] * 6))",
        "ambient_capability": "libc_call('prctl', 47, 2, 21, 0, 0)",
        "device": "os.mknod('disk', 0o60600, os.makedev(254, 0))",
        "keyring": "call('keyctl', 0, -3, 1)",
        "add_key": "call('add_key', b'user', b'x', b'y', 1, -3)",
        "bpf": "call('bpf', 0, ctypes.create_string_buffer(128), 128)",
        "perf": "call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0)",
        "userfaultfd": "call('userfaultfd', 1)",
        "load_module": "call('init_module', b'', 0, b'')",
        "kexec": "call('kexec_load', 0, 0, 0, 0)",
        "reboot": "call('reboot', 0xfee1dead, 672274793, 0, 0)",
        "clock": "__import__('time').clock_settime(0, 0)",
        "host_name": "__import__('socket').sethostname('x')",
        "personality": "call('personality', 0x0400000)",
        "file_handle": "call('open_by_handle_at', -100, ctypes.create_string_buffer(64), 0)",
        "kernel_log": "call('syslog', 3, ctypes.create_string_buffer(100), 100)",
        "type_into_terminal": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
        "terminal": "open('/dev/tty')",
        "new_terminal": "os.openpty()",
        "undo_filter": "libc_call('prctl', 22, 0, 0, 0, 0)",
    },
)
_add(
    "other_architecture",
    """
import mmap
if os.uname().machine == 'x86_64':  # int 0x80 with the number of getpid on i386, where other numbers hold
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    print('calling', flush=True)
    print('ESCAPED: int 0x80', ctypes.CFUNCTYPE(ctypes.c_int)(address)())
""",
)
_add(
    "x32_calls",
    "works('x32', lambda: libc_call('syscall', 0x40000000 | 39) if os.uname().machine == 'x86_64' else 1 / 0)",
)
_add(
    "setuid_binary",
    """
import subprocess
for path in ('/usr/bin/su', '/usr/bin/sudo', '/usr/bin/mount', '/usr/bin/bwrap', '/usr/bin/newuidmap', '/usr/bin/unshare'):
    works(path, lambda: subprocess.run([path, '--ro-bind', '/', '/', '-c', 'id'], check=True, capture_output=True))
works('file of its own', lambda: (open('run', 'w').write('#!/bin/sh\\nid'), os.chmod('run', 0o6755), subprocess.run('./run')))
""",
)
_add(
    "preload",
    """
import subprocess
os.environ['LD_PRELOAD'] = '/tmp/evil.so'; os.environ['PYTHONPATH'] = '/tmp'; os.environ['PYTHONSTARTUP'] = '/tmp/x.py'
open('sitecustomize.py', 'w').write('print("ESCAPED")'); open('math.py', 'w').write('print("ESCAPED")')
open('evil.so', 'wb').write(b'\\x7fELF')
works('map as code', lambda: __import__('mmap').mmap(os.open('evil.so', 2), 4, prot=7))
""",
)
# processes, memory, disk
_add(
    "fork_bomb",
    """
made = 0
while True:
    try:
        if os.fork() == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    except OSError:
        break
    made += 1
    if made > 20:
        print('ESCAPED: forks')
        break
while True:
    pass
""",
)
_add("fork_bomb_quiet", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", False)
_add(
    "thread_bomb",
    """
import threading, time
threading.stack_size(65536)
made = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        made += 1
except RuntimeError as error:
    print(error)
if made > 20:
    print('ESCAPED: threads', made)
""",
)
_add("memory_bytes", "x = bytearray(10**9)\nprint('ESCAPED')", False)
_add(
    "memory_list",
    "x = []\nwhile True:\n    x.append('a' * 10**6 + str(len(x)))\n    assert len(x) < 200, 'ESCAPED'",
    False,
)
_add("memory_number", "x = 10\nwhile True:\n    x = x * x", False)
_add(
    "memory_mapped",
    """
import mmap
held = []
def fill():
    while len(held) < 200:
        held.append(mmap.mmap(-1, 10**6)); held[-1].write(b'x' * 10**6)
works('mmap', fill)
""",
)
_add(
    "memory_of_all",
    """
import time
for _ in range(5):
    if os.fork() == 0:
        x = b'x' * (60 * 2**20)
        time.sleep(0.8)
        os.write(1, b'ESCAPED: kept')
        os._exit(0)
time.sleep(0.9)
""",
)
_add(
    "memory_without_owner",
    """
works('memfd', lambda: os.memfd_create('x'))
works('secret memory', lambda: call('memfd_secret', 0))
works('shared segment', lambda: call('shmget', 0, 1000, 0o1600))
works('message queue', lambda: call('msgget', 0, 0o1600))
works('semaphore', lambda: call('semget', 0, 1, 0o1600))
works('named queue', lambda: call('mq_open', b'x', 0o102, 0o600, 0))
works('locked', lambda: libc_call('mlockall', 3))
""",
)
_add(
    "zip_bomb",
    """
import zlib
small = zlib.compress(b'\\0' * 10**7, 9)
x = [zlib.decompress(small) for _ in range(30)]
print('ESCAPED')
""",
)
_add(
    "disk_one_file",
    """
written = 0
with open('big', 'wb', buffering=0) as file:
    try:
        while written < 2**25:
            written += file.write(b'x' * 2**16)
    except OSError as error:
        print(error)
print('ESCAPED' if written > 2**22 else 'full', written)
""",
)
_add(
    "disk_many_files",
    """
written = 0
try:
    for number in range(60):
        with open(f'f{number}', 'wb', buffering=0) as file:
            for _ in range(16):
                written += file.write(b'x' * 2**16)
except OSError as error:
    print(error)
print('ESCAPED' if written > 2**22 else 'full', written)
""",
)
_add(
    "disk_sparse",
    "works('sparse', lambda: open('s', 'wb').truncate(2**40))\nworks('allocate', lambda: os.posix_fallocate(os.open('t', 66), 0, 2**30))",
)
_add(
    "disk_inodes",
    """
made = 0
try:
    while made < 5000:
        os.mkdir(f'd{made}') if made % 2 else os.symlink('x', f'd{made}')
        made += 1
except OSError as error:
    print(error)
print('ESCAPED' if made > 64 else 'full', made)
""",
)
_add(
    "descriptors",
    "held = []\ntry:\n    while True:\n        held.append(os.dup(1))\nexcept OSError as error:\n    print(error)\nprint('ESCAPED' if len(held) > 64 else 'full')",
)
_add(
    "pipes_filled",
    """
total = 0
try:
    while True:
        end, begin = os.pipe()
        os.set_blocking(begin, False)
        try:
            while True:
                total += os.write(begin, b'x' * 65536)
        except BlockingIOError:
            pass
except OSError as error:
    print(error)
print('ESCAPED' if total > 2**25 else 'full')
""",
)
# secrets and descriptors that might be inherited
_add(
    "environment",
    "print(dict(os.environ))\nprint(ctypes.string_at(ctypes.c_char_p.in_dll(libc, 'program_invocation_name')))",
)
_add(
    "inherited_descriptors",
    """
for number in range(3, 4096):
    try:
        kind = os.fstat(number)
    except OSError:
        continue
    print('ESCAPED: descriptor', number, kind)
""",
)
_add(
    "server_in_frames",
    """
import gc, sys
frame, seen = sys._getframe(), []
while frame:
    seen.append({name: repr(value)[:300] for name, value in frame.f_locals.items()})
    frame = frame.f_back
print(seen)
import socket
for thing in gc.get_objects():
    if isinstance(thing, socket.socket):
        works('the socket of the server', lambda: thing.send(b'0'))
""",
)
# the protocol of the server
_add(
    "forged_answers",
    """
for text in (b'0', b'ready', b'run', b'-9', b'stop', b'{"output": "ESCAPED"}\\n', b'\\0' * 64, b'\\xff' * 1000):
    for number in (*range(3, 1100), 0):
        try:
            os.write(number, text)
            print('ESCAPED: wrote to', number)
        except OSError:
            pass
import sys
sys.stderr.write('0\\nready\\n')
""",
)
_add("close_everything", "os.closerange(0, 1100)\nimport time\nwhile True:\n    pass")
_add("close_and_exit", "os.closerange(0, 1100)\nos._exit(0)")
_add("swap_descriptors", "os.dup2(2, 1)\nos.dup2(0, 2)\nprint('x' * 10000)\nos.dup2(1, 0)\nprint(os.read(0, 1))")
_add("unblocked_output", "for n in (0, 1, 2):\n    os.set_blocking(n, False)\nos.write(1, b'x' * 65536)")
_add(
    "read_of_own_output",
    "works('reading the pipe', lambda: os.read(1, 10))\nworks('reopen', lambda: open('/dev/stdout', 'r'))",
)
_add("huge_output", "while True:\n    print('x' * 100000)", False)
_add("huge_errors", "import sys\nwhile True:\n    sys.stderr.write('x' * 100000)", False)
_add("output_without_end_of_line", "import os\nfor _ in range(50):\n    os.write(1, b'x' * 1000)", False)
_add(
    "binary_output",
    "import os\nos.write(1, bytes(range(256)) * 10)\nos.write(2, b'\\xff\\xfe\\0\\x1b[2J' * 50)\nos._exit(3)",
    False,
)
_add("lone_surrogates", "print('\\ud800')\nraise ValueError('\\udfff\\0\\x1b]0;x\\7')", False)
_add("error_that_lies", "class E(Exception):\n    def __str__(self):\n        return 'x' * 10**7\nraise E", False)
_add("error_that_hangs", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", False)
_add("error_without_end", "class E(BaseException):\n    def __str__(self):\n        raise self\nraise E", False)
# time
_add("sleep", "import time\ntime.sleep(100)", False)
_add("busy", "while True:\n    pass", False)
_add("busy_in_c", "sum(range(10**12))", False)
_add("backtracking", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", False)
_add("read_input", "import sys\nprint(repr(sys.stdin.read()))\nprint(input())", False)
_add(
    "busy_on_the_way_out",
    "import sys\nclass D:\n    def __del__(self):\n        while True: pass\nd = D()\nsys.exit()",
    False,
)
_add("thread_that_stays", "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()", False)
_add(
    "daemon",
    """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in (0, 1, 2):
            os.close(n)
        while True:
            try:
                open('/tmp/left', 'w').write('x')
            except OSError:
                pass
    os._exit(0)
time.sleep(0.05)
""",
)
_add("child_with_output", "import time\nif os.fork() == 0:\n    time.sleep(100)\nprint('done')")
_add(
    "children_that_multiply",
    """
def flee():
    while True:
        if os.fork():
            os._exit(0)
if os.fork() == 0:
    flee()
print('gone')
""",
)
# ends of all kinds
_add("hard_exit", "os._exit(113)")
_add("exit", "import sys\nsys.exit(2**40)", False)
_add(
    "exit_with_object", "import sys\nclass X:\n    def __str__(self):\n        raise RuntimeError\nsys.exit(X())", False
)
_add("recursion", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", False)
_add("nested_source", "eval('(' * 10**5 + ')' * 10**5)", False)
_add("segmentation_fault", "ctypes.string_at(1)")
_add("abort", "os.abort()")
_add("alarm", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.001)\nwhile True:\n    pass", False)
_add(
    "core_dump",
    "import resource\nworks('core', lambda: resource.setrlimit(resource.RLIMIT_CORE, (2**20, 2**20)))\nos.kill(os.getpid(), 6)",
)
_add("inotify", "works('inotify', lambda: call('inotify_init1', 0))")
# the next snippet
_add(
    "change_everything",
    """
import atexit, builtins, math, random, resource, signal, sys, threading
builtins.print = lambda *_: None
math.pi = 3
random.seed(1)
sys.modules['json'] = None
sys.path[:] = ['/tmp']
sys.settrace(lambda *_: None)
sys.setrecursionlimit(50)
os.chdir('/')
os.umask(0o777)
os.environ['LEFT'] = '1'
for number in (1, 2, 10, 12, 14, 15):
    signal.signal(number, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
atexit.register(lambda: os.write(1, b'ESCAPED'))
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
sys.stdout = None
""",
)
_add(
    "files_hard_to_remove",
    """
here = b'/tmp'
for name in (b'\\xff\\n\\x1b', b'-rf', b'a' * 255, b'...'):
    open(here + b'/' + name, 'w').close()
os.symlink('/usr', 'usr'); os.symlink('loop', 'loop'); os.mkfifo('pipe')
os.mkdir('shut'); open('shut/x', 'w').close(); os.chmod('shut', 0)
for _ in range(40):
    os.mkdir('deep'); os.chdir('deep')
os.chmod('/tmp', 0)
""",
)
_add(
    "cover_tmp",
    "held = os.open('/tmp', os.O_RDONLY)\nimport fcntl\nfcntl.flock(held, fcntl.LOCK_EX)\nos.fchdir(held)\nos.fork()\nos.setsid() if os.getpid() else 0",
)
_add(
    "lock_of_system_file",
    "import fcntl\nfcntl.flock(os.open('/usr/bin/env', 0), fcntl.LOCK_EX)\nif os.fork() == 0:\n    import time\n    time.sleep(100)",
)
_add("marks_in_kernel", "os.setsid()\nlibc_call('prctl', 15, b'x', 0, 0, 0)\nopen('/dev/null', 'w').write('x')")
_add("source_that_is_no_text", "\0\ud800 import os", False)


class Watch:
    """Secrets on the host, and eyes that see whether anything got at them."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="host-"))
        self.folder.chmod(0o755)
        self.file = self.folder / "secret"
        self.file.write_text(self.secret)
        self.file.chmod(0o644)
        os.environ["A_SECRET"] = self.secret
        self.inherited = os.open(self.file, os.O_RDONLY)
        os.set_inheritable(self.inherited, True)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.abstract.bind("\0sandbox-" + self.secret[:8])
        for listener in (self.unix, self.abstract):
            listener.listen()

    def fill(self, code: str) -> str:
        """Put this host's particulars into an attempt."""
        column = seccomp.MACHINES[os.uname().machine][0]
        numbers = {name: row[column] for name, row in {**seccomp.DENIED, **seccomp.ABSENT}.items()}
        numbers["clone"] = seccomp.CLONE[column]
        for mark, value in (
            ("@NUMBERS@", repr(numbers)),
            ("@SECRET_PATH@", str(self.file)),
            ("@FOLDER@", str(self.folder)),
            ("@PORT@", str(self.tcp.getsockname()[1])),
            ("@UDP@", str(self.udp.getsockname()[1])),
            ("@UNIX@", str(self.folder / "socket")),
            ("@ABSTRACT@", "sandbox-" + self.secret[:8]),
        ):
            code = code.replace(mark, value)
        return code

    def alarms(self) -> list[str]:
        """What can be seen from outside."""
        touched = select.select([self.tcp, self.udp, self.unix, self.abstract], [], [], 0)[0]
        seen = ["a listener was reached"] if touched else []
        if self.file.read_text() != self.secret or sorted(os.listdir(self.folder)) != ["secret", "socket"]:
            seen.append("the host's files were changed")
        if stat.S_IMODE(self.file.stat().st_mode) != 0o644:
            seen.append("the secret's permissions were changed")
        return seen

    def close(self) -> None:
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        os.close(self.inherited)
        os.environ.pop("A_SECRET", None)
        for path in (self.file, self.folder / "socket"):
            path.unlink()
        self.folder.rmdir()


class Trial:
    """A sandbox, what it looked like when new, and attempts made on it one after the other."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.sandbox: Sandbox = open_sandbox(LIMITS)
        self.new = self.sandbox.run(CLEAN)
        self.processes = self.below()

    def below(self) -> int:
        return len(watch.below(os.getpid()))

    def attempt(self, name: str) -> list[str]:
        """Make one attempt; return what is wrong afterwards."""
        begun = time.monotonic()
        ran = self.sandbox.run(self.watch.fill(ATTACKS[name]))
        wrong = self.watch.alarms()
        text = f"{ran.output} {ran.problem}"
        wrong += [line[:300] for line in text.splitlines() if "ESCAPED" in line]
        if self.watch.secret in text:
            wrong.append("the secret came out")
        if time.monotonic() - begun > LIMITS.seconds + GRACE:
            wrong.append(f"took {time.monotonic() - begun:.1f} s")
        if len(ran.output) > LIMITS.output + 20 or len(ran.problem) > 1000 or "\n" in ran.problem:
            wrong.append(f"{len(ran.output)} characters of output, {len(ran.problem)} of problem")
        if re.search("restarted|prepared", ran.problem):
            wrong.append(f"the sandbox broke: {ran.problem}")
        if self.below() != self.processes:
            wrong.append(f"{self.below()} processes instead of {self.processes}")
        again = self.sandbox.run(CLEAN)
        if (again.output, again.problem) != (self.new.output, ""):
            wrong.append(f"not as new: {again.problem or again.output}")
        simple = self.sandbox.run("print(1)")
        if (simple.output, simple.problem) != ("1\n", ""):
            wrong.append(f"not usable: {simple}")
        return wrong

    def close(self) -> None:
        self.sandbox.close()
        self.watch.close()


def main() -> None:
    trial = Trial()
    wrong = {name: trial.attempt(name) for name in sys.argv[1:] or ATTACKS}
    level = trial.sandbox.level
    trial.close()
    print(
        json.dumps(
            {"user": os.getuid(), "level": level, "tried": len(wrong), "wrong": {k: v for k, v in wrong.items() if v}}
        )
    )


if __name__ == "__main__":
    main()
