"""Two hosts on one machine: namespaces with a name, an address, processes and an sshd each, joined by a cable to cut.

They share the machine's disk, as hosts share a file system. Nothing of the machine is changed: all mounts, names and
interfaces belong to the namespaces, keys and configurations to a folder, and both end with the context.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from train.processes.project_root import ROOT

_NAMESPACES = ["--mount", "--uts", "--ipc", "--net", "--pid"]
_ADDRESSES = {"host-1": "10.77.0.1", "host-2": "10.77.0.2"}
_INTERFACE = "eth0"
_SSHD = "/usr/sbin/sshd"  # sshd must be started by its absolute path
# /run is hidden, since sshd needs a folder of its own in it.
_BOOT = """set -e
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
ip link set lo up
exec {sshd} -D -e -f {folder}/{name}.sshd_config
"""
_SSHD_CONFIG = """HostKey {folder}/{name}
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PidFile none
{keepalive}
"""
_SSH_CONFIG = """Host *
User root
IdentityFile {folder}/user
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile none
LogLevel ERROR
{keepalive}
"""


def why_not() -> str | None:
    """What this machine lacks for two hosts; None if nothing is missing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [
        tool
        for tool in ("unshare", "nsenter", "setpriv", "ip", "ssh", "ssh-keygen", "pdsh")
        if shutil.which(tool) is None
    ]
    missing += [] if os.access(_SSHD, os.X_OK) else [_SSHD]
    if missing:
        return f"not installed: {', '.join(missing)}"
    links = "mount -t tmpfs tmpfs /run && ip link add end-1 type veth peer name end-2"
    trial = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "sh", "-c", links], stderr=subprocess.PIPE, text=True, check=False
    )
    return None if trial.returncode == 0 else f"namespaces are not permitted here: {trial.stderr.strip()}"


@dataclass(frozen=True)
class Host:
    """boot: the process that the host ends with. first: the host's first process, as this machine numbers it."""

    name: str
    boot: subprocess.Popen
    first: int

    def command(self, *arguments: str) -> list[str]:
        """A command that runs `arguments` on this host."""
        return ["nsenter", "--all", f"--target={self.first}", f"--wd={ROOT}", *arguments]

    def trainers(self) -> set[int]:
        """The training processes, as this machine numbers them; without launchers."""
        here, found = os.readlink(f"/proc/{self.first}/ns/net"), set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                if arguments[1:3] == [b"-u", b"launch/train.py"] and os.readlink(process / "ns/net") == here:
                    found.add(int(process.name))
            except OSError:  # it has just ended
                continue
        return found


class TwoHosts:
    """`hosts` and the cable between them. folder: hostfile, keys, configurations and logs."""

    def __init__(self, folder: Path, hosts: list[Host]):
        self.folder, self.hosts = folder, hosts

    def launch(self, *arguments: str, log: Path) -> subprocess.Popen:
        """`deepspeed ARGUMENTS` on the first host, on CPUs."""
        environment = {
            **os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "DS_ENV_FILE": str(self.folder / "deepspeed_env"),
        }  # fmt: skip
        command = self.hosts[0].command(str(Path(sys.executable).with_name("deepspeed")), *arguments)
        with open(log, "w") as output:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def cut(self) -> None:
        """Unplug the cable from the second host."""
        _ip(self.hosts[1], "link", "set", "dev", _INTERFACE, "down")

    def join(self) -> None:
        _ip(self.hosts[1], "link", "set", "dev", _INTERFACE, "up")


@contextmanager
def two_hosts(folder: Path, *, keepalive: bool = False) -> Iterator[TwoHosts]:
    """Boot host-1 and host-2. keepalive: whether ssh drops a silent connection after 3 seconds."""
    _write_configurations(folder, keepalive=keepalive)
    boots = [_boot(name, folder) for name in _ADDRESSES]
    try:
        hosts = [Host(name, boot, _first_process(boot)) for name, boot in zip(_ADDRESSES, boots, strict=True)]
        _plug_in(*hosts)
        for host in hosts:
            _wait_for_ssh(hosts[0], host, folder)
        yield TwoHosts(folder, hosts)
    finally:
        for boot in boots:
            _shut_down(boot)


def _boot(name: str, folder: Path) -> subprocess.Popen:
    script = _BOOT.format(name=name, folder=folder, sshd=_SSHD)
    unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        *unshare,
        "sh",
        "-c",
        script,
    ]  # so that it does not outlive a killed test
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _first_process(boot: subprocess.Popen) -> int:
    children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    return int(found[0])


def _shut_down(boot: subprocess.Popen) -> None:
    if boot.poll() is None:
        os.kill(_first_process(boot), signal.SIGKILL)  # the kernel ends every process of its namespace with it
        boot.wait()


def _plug_in(first: Host, second: Host) -> None:
    end = ["name", _INTERFACE, "netns"]
    subprocess.run(
        ["ip", "link", "add", *end, str(first.first), "type", "veth", "peer", *end, str(second.first)], check=True
    )
    for host in (first, second):
        for arguments in (["addr", "add", f"{_ADDRESSES[host.name]}/24"], ["link", "set", "up"]):
            _ip(host, *arguments, "dev", _INTERFACE)


def _ip(host: Host, *arguments: str) -> None:
    subprocess.run(["nsenter", "--net", f"--target={host.first}", "ip", *arguments], check=True)


def _wait_for_ssh(of: Host, to: Host, folder: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        command = of.command(str(folder / "bin" / "ssh"), to.name, "hostname")
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == to.name:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{to.name}: {answer.stderr}{(folder / f'{to.name}.log').read_text()}")
        time.sleep(0.1)


def _write_configurations(folder: Path, *, keepalive: bool) -> None:
    """Write keys, the settings of ssh and sshd, and an `ssh` with these settings for the PATH of deepspeed and pdsh."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("user", *_ADDRESSES):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    write = {"hosts": "127.0.0.1 localhost\n", "known_hosts": "", "hostfile": ""}
    for name, address in _ADDRESSES.items():
        write["hosts"] += f"{address} {name}\n"
        write["known_hosts"] += f"{name} {(folder / f'{name}.pub').read_text()}"
        write["hostfile"] += f"{name} slots=1\n"
        write[f"{name}.sshd_config"] = _SSHD_CONFIG.format(
            folder=folder, name=name, keepalive=_keepalive("Client", keepalive)
        )
    write["ssh_config"] = _SSH_CONFIG.format(folder=folder, keepalive=_keepalive("Server", keepalive))
    write["deepspeed_env"] = "DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n"  # deepspeed passes only these variables on
    for name, text in write.items():
        (folder / name).write_text(text)
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)


def _keepalive(other: str, wanted: bool) -> str:
    return f"{other}AliveInterval {int(wanted)}\n{other}AliveCountMax 2"
