"""Updates on booted hosts: what a root folder cannot show. The job of a timer really installs what is pending, services run meanwhile,
and a package's script asks for a restart. The agent runs as its package installed it, and what it reports is asked of the collector.

Hosts have no way out: what apt installs there was fetched into their root file system before.
"""

import json

from booted import until
from facts import names, told, upgradable_in
from machine import Failure, call, root_of, say

TIMER, JOB = "apt-daily-upgrade.timer", "apt-daily-upgrade.service"
STAMP = "/var/lib/apt/periodic/unattended-upgrades-stamp"
# A restart's need is noted by what unattended-upgrades leaves for the scripts of kernel packages.
KERNEL_SCRIPT = "/etc/kernel/postinst.d/unattended-upgrades"
# Installing what is pending takes a while on a slow machine.
UPGRADE = 900.0
# A look, and its way to the collector.
SEEN = 40.0


def fetch(suite):
    """Fetches into the root file system of `suite`, once, what its hosts install: the job for automatic updates, and the updates."""
    root = root_of(suite)
    if (root / ".fetched").exists():
        return
    say(f"fetching what hosts of {suite} install")
    fetching = ("chroot", root, "apt-get", "-qq", "-y", "--download-only", "--no-install-recommends")
    call(*fetching, "install", "unattended-upgrades", timeout=900)
    call(*fetching, "dist-upgrade", timeout=900)
    (root / ".fetched").touch()


class Updates:
    """What the collector knows of the updates of one host."""

    def __init__(self, collector, ctl, host):
        self.collector, self.ctl, self.host = collector, ctl, host
        self.rows = []

    def facts(self):
        shown = json.loads(self.collector.run(*self.ctl, "-o", "json", "hosts", "show", self.host.name))
        return next(fact["fact"] for fact in shown["facts"] if fact["subject"] == "patch_level")

    def verdict(self, control):
        shown = json.loads(self.collector.run(*self.ctl, "-o", "json", "hosts", "show", self.host.name))
        return next(verdict["verdict"] for verdict in shown["verdicts"] if verdict["control_id"] == control)

    def check(self, what, expected, reading):
        """Looks until what `reading` takes from the facts is as expected. What stays otherwise is a row that differs."""
        self.collector.run(*self.ctl, "look", self.host.name)
        got = None

        def is_so():
            nonlocal got
            got = reading(self.facts())
            return got == expected

        try:
            until(what, SEEN, is_so)
        except Failure:
            pass
        self.row(what, expected, got)

    def row(self, what, expected, got):
        self.rows.append((self.host.name, what, expected, got, expected == got))

    def as_apt_says(self, when):
        found, security = upgradable_in(self.host.run("apt", "list", "--upgradable", "-a"))
        self.check(f"pending {when}, as apt says", found, lambda facts: names(facts["pending"]))
        self.check(f"about security {when}", security, lambda facts: names(facts["pending"], lambda it: it["security"]))
        return security


def see(collector, ctl, host):
    """Sees updates pending, then installed by the host's own job, and returns a row for each reading."""
    updates = Updates(collector, ctl, host)
    security = updates.as_apt_says("at first")
    if not security:
        raise Failure(f"no security update is pending on {host.name}")
    updates.check("all is known", True, lambda facts: told(facts["pending_complete"]))
    updates.check("metadata are verified", True, lambda facts: told(facts["security_metadata_verified"]))
    the_job(updates)
    held = security[0]
    host.run("apt-mark", "hold", held)
    the_run(updates, held)
    a_restart(updates)
    return updates.rows


def enabled(facts):
    return told(facts["automatic_updates"]["enabled"])


def last_success(facts):
    return told(facts["automatic_updates"]["last_success_time"])


def the_job(updates):
    """The job is installed, and its timer taken away in both ways and given back."""
    host = updates.host
    updates.check("on, before it is installed", False, enabled)
    host.run("apt-get", "-qq", "-y", "--no-download", "--no-install-recommends", "install", "unattended-upgrades", timeout=UPGRADE)
    updates.row("its timer, as systemd says", "active", host.run("systemctl", "is-active", TIMER, check=False).strip())
    updates.check("on, once it is installed", True, enabled)
    updates.check("last run, before any", "unknown(absent)", last_success)
    for take, give in (("disable", "enable"), ("mask", "unmask")):
        host.run("systemctl", take, "--now", TIMER)
        updates.check(f"on, after systemctl {take}", False, enabled)
        host.run("systemctl", give, TIMER)
        host.run("systemctl", "start", TIMER)
        updates.check(f"on, after systemctl {give}", True, enabled)


def the_run(updates, held):
    """The job runs as its timer starts it, and installs all that is about security but what is held back."""
    host = updates.host
    # In one step: one for each package takes minutes.
    host.shell("echo 'Unattended-Upgrade::MinimalSteps \"false\";' > /etc/apt/apt.conf.d/99-in-one-step")
    pid = host.unit("muster-agent", "MainPID")
    # Not waited for by systemctl: among the updates is systemd, which hangs up as it starts itself again.
    host.run("systemctl", "start", "--no-block", JOB)

    def has_ended():
        return host.unit(JOB, "ExecMainExitTimestampMonotonic") != "0" and host.unit(JOB, "ActiveState") in ("inactive", "failed")

    _, took = until(f"the job for automatic updates of {host.name}", UPGRADE, has_ended)
    say(f"{host.name}: the job for automatic updates ran for {took:.0f} s")
    updates.row("the job, as systemd says", "success", host.unit(JOB, "Result"))
    left = updates.as_apt_says("after the run")
    # What needs the held one in the same version waits with it.
    updates.row("held back, and so left about security", True, held in left)
    updates.check("held back", [held], lambda facts: names(facts["pending"], lambda it: it["held"]))
    stamp = host.shell(f"date -u +%FT%T -d @$(stat -c %Y {STAMP})", check=False).strip()
    updates.check("last run, as its stamp says", stamp, lambda facts: str(last_success(facts))[:19])
    updates.row("PAT-03", "pass", updates.verdict("PAT-03"))
    updates.row("the agent ran all the time", pid, host.unit("muster-agent", "MainPID"))


def a_restart(updates):
    """A kernel's package asks for a restart by its script."""
    host = updates.host
    package = "linux-image-0.0.0-test"
    updates.check("restart is needed, untold", "unknown(undecidable)", lambda facts: told(facts["reboot_required"]))
    host.shell(f"DPKG_MAINTSCRIPT_PACKAGE={package} {KERNEL_SCRIPT} 0.0.0-test")
    updates.check("restart is needed, told", True, lambda facts: told(facts["reboot_required"]))
    updates.row("by which package", [package], updates.facts()["reboot_packages"])
