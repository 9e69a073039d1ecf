"""What every test of real hosts does on the machine that it runs on: runs commands, says what it does, makes root file systems."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# Root file systems are made once, and shared by all that need one of their kind.
CACHE = REPO / "target" / "hosts"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
# Suites of Debian with the release that each is.
SUITES = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
# What a host needs to boot and to be looked at.
BOOTABLE = "systemd,systemd-sysv,dbus,iproute2,nftables,procps,passwd,ca-certificates"
# Nothing here takes this long unless it is stuck.
PATIENCE = 300.0
BEGAN = time.monotonic()


class Failure(Exception):
    """Something is not as it must be."""


def call(*command, check=True, timeout=PATIENCE, **more):
    """Runs a command and returns all that it printed."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **more)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def answer(*command, check=True, timeout=PATIENCE, **more):
    """Runs a command and returns what it printed on standard output: its warnings are no part of the answer."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **more)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text):
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def last_line(error):
    return str(error).splitlines()[-1]


def report(rows):
    """Prints a table of readings: host, what, expected, got, and whether they are the same. Returns how the program is to end."""
    def short(value):
        text = ", ".join(map(str, value)) if isinstance(value, (list, set, tuple)) else str(value)
        return text if len(text) <= 60 else f"{text[:57]}..."

    print(f"\n{'host':24} {'what':30} {'expected':62} {'got':62}")
    for host, what, expected, got, is_same in rows:
        print(f"{host:24} {what:30} {short(expected):62} {short(got):62} {'' if is_same else 'DIFFERS'}".rstrip())
    wrong = [row for row in rows if not row[4]]
    for host, what, expected, got, _ in wrong:
        print(f"FAILED: {host}: {what}: expected {expected}, got {got}", file=sys.stderr)
    say(f"{len(rows)} readings of {len({row[0] for row in rows})} hosts, {len(wrong)} of them wrong")
    return 1 if wrong else 0


# ---------------------------------------------------------------- can this machine do it?


def why_not_at_all(what, tools):
    """Returns why `what` cannot be made here by whoever runs this and with what is installed, or None."""
    if os.geteuid() != 0:
        return f"{what} need root"
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def why_no_network(name, *within):
    """Returns why network namespaces with cables cannot be made here, in which the commands `within` run, or None. Found out by trying."""
    try:
        call("ip", "netns", "add", name)
        try:
            call("ip", "-n", name, "link", "add", "br0", "type", "bridge")
            call("ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
            for command in within:
                call("ip", "netns", "exec", name, *command)
        finally:
            call("ip", "netns", "del", name, check=False)
    except Failure as error:
        return f"network namespaces cannot be made here as they are needed: {last_line(error)}"
    return None


def why_no_overlay():
    """Returns why overlay mounts cannot be made here, or None. Found out by trying."""
    script = "set -e; mount -t tmpfs t /mnt; cd /mnt; mkdir l u w m; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m"
    try:
        call("unshare", "-m", "--propagation", "private", "sh", "-c", script)
    except Failure as error:
        return f"overlay mounts cannot be made here: {last_line(error)}"
    return None


# ---------------------------------------------------------------- roots


def sources(suite):
    """Returns what a host of `suite` has as its sources.list."""
    return f"deb {MIRROR} {suite} main\ndeb {SECURITY} {suite}-security main\n"


def root_of(suite):
    """Returns the root file system of `suite`, made once: from the main archive alone, so that security updates are pending."""

    def finish(root):
        (root / "etc/apt/sources.list").write_text(sources(suite))
        call("chroot", root, "apt-get", "-qq", "update")

    return root_with(f"root-{suite}", suite, BOOTABLE, finish)


def root_with(name, suite, packages, finish=lambda root: None):
    """Returns the root file system `name` of `suite` with these packages, made once and then finished by `finish`."""
    root = CACHE / name
    if (root / ".complete").exists():
        return root
    say(f"debootstrap {suite} as {name}")
    CACHE.mkdir(parents=True, exist_ok=True)
    # Of a run that did not come to its end.
    shutil.rmtree(root, ignore_errors=True)
    # What it mounts ends with the name space, also when it does not come to its end.
    private = ["unshare", "-m", "--propagation", "private"]
    call(*private, "debootstrap", "--variant=minbase", f"--include={packages}", suite, root, MIRROR, timeout=900)
    finish(root)
    (root / ".complete").touch()
    return root


def inside(root, script, timeout=PATIENCE):
    """Runs a script in `root`, in which packages may be installed and none of their services is started. Every mount ends with it."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    enter = (
        'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && '
        'DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 exec chroot "$0" sh -ec "$1"'
    )
    try:
        call("unshare", "-m", "--propagation", "private", "sh", "-c", enter, root, script, timeout=timeout)
    finally:
        policy.unlink()
