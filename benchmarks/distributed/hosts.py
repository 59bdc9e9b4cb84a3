"""Network namespaces joined by cables and a switch, each for the ranks of one host. Needs Linux, iproute2 and root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..case import CannotRunError

_CLONE_NEWNET = 0x40000000
_CLONE_NEWUTS = 0x04000000


class Host(NamedTuple):
    namespace: str
    #: Its end of the cable, and the switch's.
    interface: str
    port: str
    switch: str

    def enter(self) -> None:
        """Makes the calling process, which has to have no other threads, one of this host, by its name too."""
        path = f"/run/netns/{self.namespace}"
        descriptor = os.open(path, os.O_RDONLY)
        try:
            library = ctypes.CDLL(None, use_errno=True)
            if library.setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns", path)
            if library.unshare(_CLONE_NEWUTS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
        finally:
            os.close(descriptor)
        socket.sethostname(self.namespace)
        os.environ["GLOO_SOCKET_IFNAME"] = self.interface

    def pull_cable(self) -> None:
        _ip("-n", self.switch, "link", "set", self.port, "down")


@contextlib.contextmanager
def hosts(count: int, bandwidth: float | None = None) -> Iterator[Sequence[Host]]:
    """So many, each of which sends at most ``bandwidth`` bytes a second. Raises CannotRunError where not permitted."""
    _check()
    name = f"ts{secrets.token_hex(4)}"
    switch = f"{name}-switch"
    made = [Host(f"{name}-{index}", "cable0", f"port{index}", switch) for index in range(count)]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        for index, host in enumerate(made):
            _connect(host, f"10.77.0.{index + 1}/24", bandwidth)
        yield made
    finally:
        for namespace in (*(host.namespace for host in made), switch):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _connect(host: Host, address: str, bandwidth: float | None) -> None:
    inside = "-n", host.namespace
    _ip("netns", "add", host.namespace)
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "link", "add", host.interface, "type", "veth", "peer", "name", host.port, "netns", host.switch)
    _ip(*inside, "address", "add", address, "dev", host.interface)
    _ip(*inside, "link", "set", host.interface, "up")
    _ip("-n", host.switch, "link", "set", host.port, "master", "bridge0", "up")
    if bandwidth is not None:
        limit = "rate", f"{8 * bandwidth:.0f}bit", "burst", "256kb", "latency", "50ms"
        _run("tc", *inside, "qdisc", "add", "dev", host.interface, "root", "tbf", *limit)


def _check() -> None:
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise CannotRunError(f"no {' and no '.join(missing)} here (apt-get install iproute2)")
    if os.geteuid() != 0:
        raise CannotRunError("only root may make network namespaces")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotRunError(f"{' '.join(command)}: {done.stderr.strip()}")
