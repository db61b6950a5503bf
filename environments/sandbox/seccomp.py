"""The system calls that a snippet is refused, as a program for the kernel's filter (classic BPF).

Refused calls fail with EPERM, so that the code sees an ordinary error. Calls newer than this list, and `clone3`, whose
arguments a filter cannot read, do not exist (ENOSYS); a call made the way of another architecture kills.
"""

import platform
import struct
from errno import ENOSYS, EPERM

DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    # the network, and memory or messages that outlive a process
    "socket": (41, 198),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large or privileged corners of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "vmsplice": (278, 75),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
}
"""Number of each call on x86_64 and on aarch64."""

ABSENT = {"clone3": (435, 435)}
NEWEST = 462
"""Last call that this list has been checked against (mseal); what came later does not exist in here."""
CLONE, PRLIMIT, SOCKETPAIR, IOCTL = (56, 220), (302, 261), (53, 199), (16, 29)
NEW_NAMESPACES = 0x7E020080
"""Every CLONE_NEW… flag."""
INJECT_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column above and the kernel's name of the architecture."""

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Where the kernel's description of a call has what is loaded."""
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000


def supported() -> bool:
    """Whether there is a filter for this processor."""
    return platform.machine() in MACHINES


def program(machine: str = "") -> bytes:
    """The filter for `machine` (default: this one)."""
    column, architecture = MACHINES[machine or platform.machine()]
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, NEWEST + 1),  # also catches the x32 calls of x86_64
        (RETURN, 0, 0, ERROR | ENOSYS),
    ]
    for table, answer in ((DENIED, EPERM), (ABSENT, ENOSYS)):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | answer)]
    lines += _argument(CLONE[column], 0, [(ANY_BIT, NEW_NAMESPACES)], refused=True)
    lines += _argument(PRLIMIT[column], 0, [(EQUAL, 0)], refused=False)  # only its own limits
    lines += _argument(SOCKETPAIR[column], 0, [(EQUAL, 1)], refused=False)  # AF_UNIX
    lines += _argument(IOCTL[column], 1, [(EQUAL, request) for request in INJECT_INPUT], refused=True)
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _argument(number: int, index: int, tests: list[tuple[int, int]], refused: bool) -> list[tuple[int, int, int, int]]:
    """Decide call `number` by the low half of one argument: refused, or else allowed, if a test holds."""
    held, otherwise = (ERROR | EPERM, ALLOW) if refused else (ALLOW, ERROR | EPERM)
    body = [(LOAD, 0, 0, ARGUMENTS + 8 * index)]
    for test, value in tests:
        body += [(test, 0, 1, value), (RETURN, 0, 0, held)]
    body.append((RETURN, 0, 0, otherwise))
    return [(EQUAL, 0, len(body), number), *body]
