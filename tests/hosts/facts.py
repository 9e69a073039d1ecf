"""What facts about updates say, in short, and what apt itself says of the same."""

import re


def told(reading):
    """Returns a known value, or `unknown(cause)`."""
    if isinstance(reading, dict) and "unknown" in reading:
        return f"unknown({reading['unknown']['cause']})"
    return reading


def detail(reading):
    return reading["unknown"].get("detail", "") if isinstance(reading, dict) and "unknown" in reading else ""


def names(pending, wanted=lambda update: True):
    return sorted({update["package"] for update in pending if wanted(update)})


def upgradable_in(listed):
    """Returns what `apt list --upgradable -a` lists as upgradable, and which of it comes from a security repository."""
    found, security = set(), set()
    for line in listed.splitlines():
        match = re.match(r"([^/\s]+)/(\S+) ", line)
        if match and "[installed,upgradable to" not in line and "[upgradable from" in line:
            found.add(match[1])
            if "security" in match[2]:
                security.add(match[1])
    return sorted(found), sorted(security)
