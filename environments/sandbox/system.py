"""What of this machine a sandbox uses: its Python, the folders that Python needs, and a user nobody else is."""

import os
import secrets
import sys
from pathlib import Path

from tutelage.errors import MissingPart

READABLE = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
"""Where the system's Python and its libraries are."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
UNUSED_USERS = range(1_900_000_000, 2_000_000_000)
"""User ids that no system gives to anyone; each sandbox takes one of its own."""
NOBODY = 65534


def unused_user() -> int | None:
    """Whom to run as: nobody in particular when started as root, else who we are (None)."""
    if os.geteuid() != 0:
        return None
    own = UNUSED_USERS[secrets.randbelow(len(UNUSED_USERS))]
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= own < first + count:
            return own
    return NOBODY


def python() -> str:
    """An interpreter for the inside: the system's, which anyone may run, or else the one that runs here."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", os.path.join(sys.base_prefix, "bin", "python3")):
        if os.access(path, os.X_OK):
            return os.path.realpath(path)
    raise MissingPart("no Python that can be used inside a sandbox: sudo apt-get install -y python3")


def readable(interpreter: str) -> tuple[str, ...]:
    """What has to be readable for `interpreter` to run."""
    prefix = str(Path(interpreter).parent.parent)
    return READABLE if prefix == "/usr" else (*READABLE, prefix)


def inside() -> str:
    """The text of what runs inside: passed as an argument, as another user may not be able to read this folder."""
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
