"""A real Slurm of two nodes on one machine: Debian's daemons, each node in namespaces of its own.

A node has its own processes, host name, /etc/hosts, network address and Ray folder, so that what a job does to "its"
machine (`ray stop` ends every Ray that it can see) stays in there, and the two find each other as two machines would.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "unshare", "nsenter", "setpriv", "ip")
WITHIN_S = 60.0


def unavailable() -> str:
    """Why there can be no Slurm here; empty where there can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if absent := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        return f"{', '.join(absent)} not installed (Debian: slurmctld slurmd slurm-client munge iproute2)"
    if os.geteuid() != 0:
        return "Slurm's daemons and namespaces need root"
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Slurm:
    """A running Slurm; `environment` is what its commands need."""

    folder: Path
    network: str = field(default_factory=lambda: f"198.18.{secrets.randbelow(256)}")
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    daemons: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words: str) -> str:
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def start(self) -> None:
        self._munge()
        self._configure()
        subprocess.run(
            ["ip", "link", "add", f"sl{self.tag}a", "type", "veth", "peer", "name", f"sl{self.tag}b"], check=True
        )
        subprocess.run(["ip", "addr", "add", f"{self.network}.1/24", "dev", f"sl{self.tag}a"], check=True)
        subprocess.run(["ip", "link", "set", f"sl{self.tag}a", "up"], check=True)
        self._daemon("slurmctld", "/usr/sbin/slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        self._node("n1")
        second = self._node("n2", "--net")
        self._connect(second)
        self._until_idle()

    def stop(self) -> None:
        """End exactly what was started, the newest first; with its first process a namespace ends whole."""
        for daemon in reversed(self.daemons):
            daemon.kill()
            daemon.wait()
        subprocess.run(["ip", "link", "del", f"sl{self.tag}a"], check=False, capture_output=True)

    def _daemon(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.out").open("wb") as log:
            # a test run that is killed leaves none of them behind
            mortal = ["setpriv", "--pdeathsig", "KILL", *words]
            self.daemons.append(subprocess.Popen(mortal, stdout=log, stderr=subprocess.STDOUT))
        return self.daemons[-1]

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self._daemon(
            "munged", "/usr/sbin/munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket",
            f"--key-file={key}", f"--pid-file={self.folder}/munge.pid", f"--log-file={self.folder}/munge.log",
            f"--seed-file={self.folder}/munge.seed", "--num-threads=1",
        )  # fmt: skip

    def _configure(self) -> None:
        lines = [
            "ClusterName=test", f"SlurmctldHost={socket.gethostname()}({self.network}.1)",
            f"SlurmctldPort={free_port()}",
            "SlurmUser=root", "SlurmdUser=root", "AuthType=auth/munge", "CryptoType=crypto/munge",
            f"AuthInfo=socket={self.folder}/munge.socket", f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/%n", f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/%n.pid", "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none", "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core", "ReturnToService=2", "SlurmdParameters=config_overrides",
            "MpiDefault=none", "SwitchType=switch/none", "KillWait=20", "MinJobAge=300", "InactiveLimit=0",
            "SchedulerParameters=sched_interval=2,requeue_delay=2",
            f"NodeName=n1 NodeAddr={self.network}.1 NodeHostname=n1 Port={free_port()} CPUs=1 RealMemory=4000",
            f"NodeName=n2 NodeAddr={self.network}.2 NodeHostname=n2 Port={free_port()} CPUs=1 RealMemory=4000",
            "PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0",
        ]  # fmt: skip
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.network}.1 n1\n{self.network}.2 n2\n")

    def _node(self, name: str, *namespaces: str) -> "subprocess.Popen[bytes]":
        ray = self.folder / f"{name}-ray"
        for folder in (ray, self.folder / name):
            folder.mkdir()
        script = (
            f"hostname {name}; mount --bind {self.folder}/hosts /etc/hosts; mkdir -p /tmp/ray; "
            f"mount --bind {ray} /tmp/ray; until ip -brief addr | grep -q {self.network}; do sleep 0.1; done; "
            # bash stays the first process: it takes away what jobs leave behind, which Ray would wait for
            f"/usr/sbin/slurmd -D -N {name} -f {self.environment['SLURM_CONF']} & wait"
        )
        return self._daemon(
            name, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", *namespaces,
            "bash", "-ec", script,
        )  # fmt: skip

    def _connect(self, node: "subprocess.Popen[bytes]") -> None:
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{node.pid}/ns/net").readlink() == own:
            time.sleep(0.05)
        subprocess.run(["ip", "link", "set", f"sl{self.tag}b", "netns", str(node.pid)], check=True)
        inside = f"ip addr add {self.network}.2/24 dev sl{self.tag}b; ip link set sl{self.tag}b up; ip link set lo up"
        subprocess.run(["nsenter", "-t", str(node.pid), "--net", "sh", "-ec", inside], check=True)

    def _until_idle(self) -> None:
        end = time.monotonic() + WITHIN_S
        while time.monotonic() < end:
            with suppress(subprocess.CalledProcessError):
                if self.ask("sinfo", "-h", "-o", "%t %D").split() == ["idle", "2"]:
                    return
            time.sleep(0.3)
        logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.out"))
        raise RuntimeError(f"Slurm's nodes are not idle after {WITHIN_S:g} s\n{logs}")


@contextmanager
def running(folder: Path) -> Generator[Slurm]:
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


if __name__ == "__main__":
    with running(Path(sys.argv[1])) as it:
        sys.stdout.write(f"{it.environment}\n")
        sys.stdout.flush()
        sys.stdin.read()
