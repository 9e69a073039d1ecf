//! Names of programs that tell of sign-ins, of the kernel or of who may do what, which the log is not whole without.

/// Names that begin so are theirs, in lower case.
const SOURCES: &[&str] = &[
    "adclient",
    "agetty",
    "anacron",
    "apparmor",
    "audi",
    "augenrules",
    "ch",
    "cockpit",
    "cron",
    "crond",
    "dbus",
    "doas",
    "dovecot",
    "dropbear",
    "freeradius",
    "ftp",
    "gdm",
    "getty",
    "gpasswd",
    "group",
    "grp",
    "imap",
    "kdm",
    "kernel",
    "krb5",
    "lightdm",
    "login",
    "lxdm",
    "newgrp",
    "newusers",
    "nslcd",
    "oddjob",
    "openvpn",
    "pam",
    "passwd",
    "pkexec",
    "pkla",
    "polkit",
    "pop3",
    "ppp",
    "proftpd",
    "pure-ftpd",
    "pw",
    "radius",
    "rlogin",
    "root",
    "rshd",
    "run0",
    "runuser",
    "samba",
    "saslauthd",
    "sddm",
    "setroubleshoot",
    "sftp",
    "shadow",
    "slapd",
    "smbd",
    "sshd",
    "sssd",
    "sudo",
    "systemd",
    "unix_chkpwd",
    "user",
    "vsftpd",
    "xdm",
    "xscreensaver",
];
/// Names that are theirs as they are.
const WHOLE: [&str; 11] =
    ["-", "atd", "internal-sftp", "kcheckpass", "su", "su-l", "telnetd", "vlock", "winbindd", "xrdp", "xrdp-sesman"];

/// Returns whether messages of a program of this name, or of all whose names begin so, are none of them.
pub(super) fn is_other(name: &str, is_start: bool) -> bool {
    let name = name.to_ascii_lowercase();
    !name.is_empty()
        && !SOURCES.iter().any(|source| name.starts_with(source) || is_start && source.starts_with(&name))
        && !WHOLE.iter().any(|source| name == *source || is_start && source.starts_with(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_tell_of_sign_ins_are_no_others() {
        for name in ["haproxy", "postfix", "[CLOUDINIT]", "cloud-init", "snapd", "suricata", "nm-dispatcher", "acpid"] {
            assert!(is_other(name, false), "{name}");
            assert!(is_other(name, true), "{name}");
        }
        for name in [
            "",
            "vsftpd",
            "internal-sftp",
            "sshd",
            "sshd-session",
            "sudo",
            "su",
            "CRON",
            "systemd-logind",
            "kernel",
            "gdm-password]",
            "useradd",
        ] {
            assert!(!is_other(name, false), "{name}");
            assert!(!is_other(name, true), "{name}");
        }
        for start in ["s", "su", "sys", "p", "k"] {
            assert!(!is_other(start, true), "{start}");
        }
        assert!(is_other("sys", false));
    }
}
