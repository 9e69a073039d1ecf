"""Booted Debian hosts: systemd-nspawn over a root that all hosts of a suite share, each in a network name space of its own."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from machine import CACHE, Failure, call, root_of, say

# The name by which hosts reach the first of them, where the collector is.
COLLECTOR = "c1.example.com"


def until(what, limit, look):
    """Waits until `look` gives something, at most `limit` seconds, and returns it and how long it took."""
    since = time.monotonic()
    instead = None
    while True:
        try:
            found = look()
            if found:
                return found, time.monotonic() - since
        except (Failure, ValueError, KeyError, IndexError) as error:
            instead = error
        if time.monotonic() - since > limit:
            raise Failure(f"waited {limit:.0f} s for {what}" + (f"; last: {instead}" if instead else ""))
        time.sleep(0.2)


def cgroups(name):
    """Returns the control groups of `name`, one in each hierarchy by which systemd follows processes."""
    roots = [Path("/sys/fs/cgroup") / part for part in ("systemd", "unified", "")]
    return [root / name for root in roots if (root / "cgroup.procs").exists()]


class Host:
    """A booted host."""

    def __init__(self, fleet, name, suite, address):
        self.fleet, self.name, self.suite, self.address = fleet, name, suite, address
        self.namespace = f"{fleet.prefix}-{name}"
        self.nspawn = None
        self.leader = None
        base = fleet.folder / name
        for part in ("upper", "work", "root"):
            (base / part).mkdir(parents=True)
        self.root = base / "root"
        self.log = fleet.folder / f"{name}.console"
        lower = root_of(suite)
        options = f"lowerdir={lower},upperdir={base / 'upper'},workdir={base / 'work'}"
        call("mount", "-t", "overlay", "overlay", "-o", options, self.root)
        (self.root / ".complete").unlink()
        (self.root / "etc/hostname").write_text(f"{name}\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n10.98.0.1 {COLLECTOR}\n")
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "root/packages").mkdir()
        for package in fleet.packages:
            shutil.copy(package, self.root / "root/packages")
        call("ip", "netns", "add", self.namespace)
        cable = f"v-{name}"
        call("ip", "-n", fleet.switch, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        call("ip", "-n", fleet.switch, "link", "set", cable, "master", "br0", "up")
        call("ip", "-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            call("ip", "-n", self.namespace, "link", "set", link, "up")

    def boot(self):
        console = open(self.log, "wb")
        # Else the units of all hosts would share their control groups, and systemd would take one host's agent for another's.
        groups = cgroups(self.namespace)

        def into_groups():
            for group in groups:
                group.mkdir()
                (group / "cgroup.procs").write_text(str(os.getpid()))

        self.nspawn = subprocess.Popen(
            [
                "systemd-nspawn", "--quiet", "-D", str(self.root), "-M", self.namespace, "--boot", "--register=no", "--keep-unit",
                # Reading the state of the clock is allowed on a real host.
                "--capability=CAP_NET_ADMIN", "--system-call-filter=adjtimex clock_adjtime",
                f"--network-namespace-path=/run/netns/{self.namespace}", "--console=read-only",
            ],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True, preexec_fn=into_groups,
        )  # fmt: skip
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children")

        def leader():
            if self.nspawn.poll() is not None:
                raise Failure(f"{self.name} did not boot:\n{self.log.read_text(errors='replace')}")
            # nspawn's first child sets up; the one whose root is another process 1 is the host's.
            for child in children.read_text().split():
                if (Path("/proc") / child / "comm").read_text().strip() == "systemd":
                    return int(child)
            return None

        self.leader, _ = until(f"{self.name} to boot", 60, leader)

        def is_up():
            return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

        _, took = until(f"{self.name} to come up", 60, is_up)
        say(f"{self.name} ({self.suite}) is up after {took:.1f} s")

    def command(self, *command):
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        inside = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        return [*inside, *clean, "DEBIAN_FRONTEND=noninteractive", *map(str, command)]

    def run(self, *command, check=True, timeout=120.0):
        """Runs a command inside and returns what it printed."""
        return call(*self.command(*command), check=check, timeout=timeout)

    def shell(self, script, check=True):
        return self.run("sh", "-c", script, check=check)

    def unit(self, name, what):
        return self.run("systemctl", "show", name, "-P", what).strip()

    def journal(self, name):
        return self.run("journalctl", "-u", name, "-o", "cat", "--no-pager", check=False)

    def stop(self):
        if self.nspawn and self.nspawn.poll() is None:
            # nspawn passes SIGTERM on as an orderly shutdown; what does not heed it in time is ended with its namespace.
            self.nspawn.terminate()
            try:
                self.nspawn.wait(10)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait(10)
        for group in cgroups(self.namespace):
            for folder, _, _ in os.walk(group, topdown=False):
                # What still has a process says so and stays, with the error that led here.
                call("rmdir", folder, check=False)
        call("umount", "-R", self.root, check=False)
        call("ip", "netns", "del", self.namespace, check=False)


class Fleet:
    """Hosts on one bridge. Everything goes when it is closed."""

    def __init__(self, source, packages):
        self.source, self.packages = source, packages
        self.prefix = f"mh{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.hosts = []
        CACHE.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))

    def __enter__(self):
        # Its own file system: an overlay may not lie on another overlay, which is what a container's disk often is.
        call("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", self.folder)
        call("ip", "netns", "add", self.switch)
        call("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        call("ip", "-n", self.switch, "link", "set", "br0", "up")
        return self

    def add(self, name, suite, address):
        host = Host(self, name, suite, address)
        self.hosts.append(host)
        return host

    def __exit__(self, kind, error, _trace):
        if kind is not None and not issubclass(kind, KeyboardInterrupt):
            for host in self.hosts:
                if host.leader:
                    show_end(host)
        for host in self.hosts:
            host.stop()
        call("ip", "netns", "del", self.switch, check=False)
        for base in self.folder.iterdir() if self.folder.exists() else []:
            call("umount", "-R", base / "root", check=False) if (base / "root").is_mount() else None
        call("umount", self.folder, check=False)
        self.folder.rmdir()


def show_end(host):
    try:
        tail = host.run("journalctl", "-u", "muster-*", "-n", "25", "-o", "short-precise", "--no-pager", check=False, timeout=20)
        print(f"--- end of the journal of {host.name}\n{tail}", flush=True)
    except (Failure, subprocess.TimeoutExpired) as error:
        print(f"--- {host.name}: {error}", flush=True)
