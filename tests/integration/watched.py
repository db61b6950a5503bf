"""Run a command and tell whom it tried to reach beyond loopback.

    python watched.py REPORT COMMAND ...

REPORT becomes a JSON file: `means` (what watched), `code` (of the command), `seen` (one line per attempt).

Packets: the command runs in a network namespace of its own, where all routes and the name server lead to an
interface that delivers nothing; what is sent there was meant for somebody else, whichever language sent it.
Audit: Python's own audit events of connecting, sending and looking up names, in all Python processes. Where
the kernel allows no namespaces, that is the only means.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

DEVICE = "beyond"
EVERY_PROTOCOL, IPV4, IPV6 = 0x0003, 0x0800, 0x86DD
TRANSPORTS = {6: "tcp", 17: "udp"}
NAMES = 53
"""Port of name servers."""
NAMESPACES = (["unshare", "--net", "--mount"], ["unshare", "--user", "--map-root-user", "--net", "--mount"])

HOOK = """
import os, sys, traceback

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None  # others are local sockets, or connected ones
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not host or host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127."):
        return
    frames = traceback.extract_stack()[:-1]
    through = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    with open(os.environ["WATCHED_AUDIT"], "a") as file:
        file.write(f"{event} of {host} by {sys.argv[:3]} from {through}\\n")

sys.addaudithook(watch)
"""


def enter(folder: Path) -> None:
    """Lead everything that is not loopback to one dead end; for a process in fresh namespaces.

    Raises:
        OSError, subprocess.CalledProcessError: that is not permitted here, or this is no fresh namespace.
    """
    if len(Path("/proc/net/route").read_text().splitlines()) > 1:
        raise OSError("this network has routes: it is in use")
    _ip("link set lo up")
    try:
        _ip(f"link add {DEVICE} type dummy")
    except subprocess.CalledProcessError:  # not every kernel has those
        _ip(f"link add {DEVICE} type veth peer name sink")
        _ip("link set sink up")
    _ip(f"link set {DEVICE} arp off up")  # off: nobody is asked who has an address, packets are sent at once
    _ip(f"addr add 198.51.100.1/24 dev {DEVICE}")
    _ip(f"route add default dev {DEVICE}")
    if Path("/proc/net/if_inet6").exists():
        _ip(f"-6 addr add 2001:db8::1/64 dev {DEVICE} nodad")
        _ip(f"-6 route add default dev {DEVICE}")
    replaced = {
        "/etc/resolv.conf": "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n",
        "/etc/nsswitch.conf": "hosts: files dns\n",
    }
    for path, text in replaced.items():
        if os.path.exists(path):
            file = folder / Path(path).name
            file.write_text(text)
            subprocess.run(["mount", "--bind", file, path], check=True, capture_output=True)


def run(report: Path, command: list[str], *, inside: bool) -> None:
    """Run and write the report; `inside` a namespace packets are watched as well."""
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(HOOK)
        audit = folder / "audit.txt"
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WATCHED_AUDIT": str(audit)}
        if inside:
            enter(folder)
            code, packets = _listening(lambda: subprocess.run(command, env=environ, check=False).returncode)
            seen += packets
        else:
            code = subprocess.run(command, env=environ, check=False).returncode
        seen += audit.read_text().splitlines() if audit.exists() else []
    means = ["packets", "audit"] if inside else ["audit"]
    report.write_text(json.dumps({"means": means, "code": code, "seen": seen}))


def _listening(run: Callable[[], int]) -> tuple[int, list[str]]:
    """The exit code, and every packet that left through the device meanwhile."""
    seen: list[str] = []
    over = Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERY_PROTOCOL)) as tap:
        tap.bind((DEVICE, EVERY_PROTOCOL))
        tap.settimeout(0.2)

        def listen() -> None:
            while True:
                try:
                    packet, (_, protocol, kind, *_) = tap.recvfrom(65535)
                except TimeoutError:
                    if over.is_set():  # and nothing is left to read
                        return
                    continue
                if kind == socket.PACKET_OUTGOING and (line := describe(protocol, packet)):
                    seen.append(line)

        thread = Thread(target=listen)
        thread.start()
        try:
            code = run()
        finally:
            over.set()
            thread.join()
    return code, seen


def describe(protocol: int, packet: bytes) -> str:
    """Whom a packet is for; empty for what the kernel itself says to its neighbours (ICMP of IPv6)."""
    if protocol == IPV4:
        transport, to, rest = packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20]), packet[(packet[0] & 15) * 4 :]
    elif protocol == IPV6:
        transport, to, rest = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40]), packet[40:]
        if transport not in TRANSPORTS:
            return ""
    else:
        return ""
    if transport not in TRANSPORTS:
        return f"packet of protocol {transport} to {to}"
    (port,) = struct.unpack("!H", rest[2:4])
    asked = f", asking for {_name(rest[20:])}" if transport == 17 and port == NAMES else ""
    return f"{TRANSPORTS[transport]} packet to {to} port {port}{asked}"


def _name(question: bytes) -> str:
    """The name in the question of a DNS message."""
    labels = []
    while question and question[0]:
        labels.append(question[1 : 1 + question[0]].decode(errors="replace"))
        question = question[1 + question[0] :]
    return ".".join(labels)


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def _namespaces() -> list[str]:
    """What to put before a command to have it in fresh namespaces; empty where none are to be had."""
    for prefix in NAMESPACES:
        try:
            subprocess.run([*prefix, sys.executable, __file__, "--probe"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return prefix
    return []


def main(arguments: list[str]) -> None:
    if arguments == ["--probe"]:
        with tempfile.TemporaryDirectory() as folder:
            enter(Path(folder))
    elif arguments[0] == "--inside":
        run(Path(arguments[1]), arguments[2:], inside=True)
    elif prefix := _namespaces():
        subprocess.run([*prefix, sys.executable, __file__, "--inside", *arguments], check=True)
    else:
        run(Path(arguments[0]), arguments[1:], inside=False)


if __name__ == "__main__":
    main(sys.argv[1:])
