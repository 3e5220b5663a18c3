"""A real Slurm with two nodes on this machine, in a network namespace of its own.

Slurm wants an address that is no loopback; the namespace gives it one that nobody else can reach.
Each node is a process namespace: killed, it takes everything that runs on it along, as a machine
that loses its power does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ADDRESS = "10.99.0.1"
Process = subprocess.Popen[str]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip")

_CONFIGURATION = """\
ClusterName=fleet
SlurmctldHost=localhost({address})
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# How long a requeued job waits for its next start, among others; 120 without this.
AuthInfo=socket={folder}/munge,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,sched_min_interval=0
ReturnToService=2
SlurmdTimeout=3
MessageTimeout=2
TCPTimeout=1
NodeName=one NodeHostname=localhost NodeAddr={address} Port=16818 CPUs=2 RealMemory=4000
NodeName=two NodeHostname=localhost NodeAddr={address} Port=16819 CPUs=2 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Return why there can be no such cluster here, or None."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)}: not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "this machine allows no network namespaces"


class Namespace:
    """A network namespace with loopback and, for Slurm, one end of a pair of interfaces."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        self._holder = holder
        self._enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
        self.environment = dict(os.environ)
        self._started: list[Process] = []

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, to its end."""
        return subprocess.run(
            [*self._enter, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=240,
            check=check,
            env=self.environment,
        )

    def start(
        self,
        *words: str | Path,
        output: int = subprocess.DEVNULL,
        errors: int = subprocess.DEVNULL,
    ) -> Process:
        """Start a command inside; what still runs when the namespace ends is killed."""
        process = subprocess.Popen(
            [*self._enter, *map(str, words)],
            text=True,
            env=self.environment,
            stdout=output,
            stderr=errors,
        )
        self._started.append(process)
        return process

    def process_called(self, name: str) -> int:
        """Return the number of the one process in here that calls itself so."""
        (pid,) = self._processes(name.encode())
        return pid

    def end(self) -> None:
        """Leave nothing of a test that failed to the tests after it."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            if process.returncode is None:
                process.communicate()

    def _processes(self, name: bytes = b"") -> list[int]:
        mine = Path(f"/proc/{self._holder.pid}/ns/net").stat().st_ino
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                called = (process / "cmdline").read_bytes().startswith(name)
                if called and (process / "ns" / "net").stat().st_ino == mine:
                    found.append(int(process.name))
        return found


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a network namespace that lasts as long as the block; it reaches only itself."""
    holder = subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        inside = Namespace(holder)
        try:
            yield inside
        finally:
            inside.end()
    finally:
        holder.kill()
        holder.communicate()


class Slurm:
    """The cluster. `kill_node` ends a node and all that runs on it, without a word to anybody."""

    def __init__(self, inside: Namespace, folder: Path) -> None:
        self.inside = inside
        self.folder = folder
        self.nodes: dict[str, Process] = {}

    def start_node(self, name: str) -> None:
        namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        slurmd = ["slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf")]
        self.nodes[name] = self.inside.start(*namespaces, *slurmd)

    def kill_node(self, name: str) -> None:
        node = self.nodes.pop(name)
        node.send_signal(signal.SIGKILL)
        node.wait()

    def wait_until(self, *words: str, says: str) -> None:
        """Wait until one of Slurm's commands answers so."""
        deadline = time.monotonic() + 90
        while sorted(set(self.inside.run(*words, check=False).stdout.split())) != says.split():
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-3000:]
            time.sleep(0.1)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Run the cluster as long as the block lasts."""
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(_CONFIGURATION.format(address=ADDRESS, folder=folder))
    with namespace() as inside:
        inside.run("ip", "link", "add", "fleet0", "type", "veth", "peer", "name", "fleet1")
        inside.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "fleet0")
        for one in ("fleet0", "fleet1"):
            inside.run("ip", "link", "set", one, "up")
        inside.environment["SLURM_CONF"] = str(configuration)
        files = [f"--{one}-file={folder}/munge.{one}" for one in ("key", "pid", "log", "seed")]
        inside.start("munged", "--force", "-F", f"--socket={folder}/munge", *files)
        _wait_for(folder / "munge")
        inside.start("slurmctld", "-D", "-f", configuration)
        cluster = Slurm(inside, folder)
        for name in ("one", "two"):
            cluster.start_node(name)
        cluster.wait_until("sinfo", "-h", "-o", "%T", says="idle")
        yield cluster


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
