//! Directories of accounts that a host is set up for. Distributions name their modules whether or not anything is.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Settings of Samba, Kerberos and himmelblau.
const SMB_CONF: &str = "/etc/samba/smb.conf";
const KRB5_CONF: &str = "/etc/krb5.conf";
const HIMMELBLAU_CONF: &str = "/etc/himmelblau/himmelblau.conf";
/// Settings of the modules that are called pam_ldap.
const LDAP_CONF: [&str; 3] = ["/etc/nslcd.conf", "/etc/pam_ldap.conf", "/etc/ldap.conf"];
/// Services of systemd whose records are those of its files, or of nobody who signs in.
const USER_SERVICES: [&str; 7] = [
    "io.systemd.DropIn",
    "io.systemd.DynamicUser",
    "io.systemd.Home",
    "io.systemd.Machine",
    "io.systemd.Multiplexer",
    "io.systemd.NameServiceSwitch",
    "io.systemd.NamespaceResource",
];
/// Files of one folder that are read, at most.
const FILES: usize = 64;

/// Returns whether SSSD has settings.
pub fn has_sssd(host: &dyn Host) -> Result<bool, Unknown> {
    Ok(has_names(host, "/etc/sssd", "sssd.conf")? || has_names(host, "/etc/sssd/conf.d", ".conf")?)
}

/// Returns whether there are records of users as of nss-systemd(8), beside those of services.
pub fn has_user_records(host: &dyn Host) -> Result<bool, Unknown> {
    Ok(has_names(host, "/etc/userdb", ".user")?
        || has_names(host, "/run/userdb", ".user")?
        || has_names(host, "/usr/lib/userdb", ".user")?
        || has_names(host, "/var/lib/systemd/home", ".identity")?)
}

/// Returns whether another than systemd itself gives records of users, as by `io.systemd.UserDatabase`.
pub fn has_user_services(host: &dyn Host) -> Result<bool, Unknown> {
    const FOLDER: &str = "/run/systemd/userdb";
    match host.list(Path::new(FOLDER)) {
        Ok(names) => Ok(!names.iter().all(|name| USER_SERVICES.iter().any(|own| name.to_str() == Some(*own)))),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(false),
        Err(error) => Err(host::unknown(format!("list {FOLDER}"), &error)),
    }
}

/// Returns whether the host is set up for the directory that a module of PAM asks, of which `args` are the arguments.
pub fn has_directory(host: &dyn Host, module: &str, args: &[String]) -> Result<bool, Unknown> {
    let elsewhere = |name: &str| args.iter().any(|arg| arg.starts_with(name));
    match module {
        "pam_sss" => has_sssd(host),
        "pam_winbind" => match read(host, SMB_CONF)? {
            Some(text) => joins_a_domain(&text).map_err(|what| undecidable(SMB_CONF, what)),
            None => Ok(false),
        },
        "pam_krb5" if elsewhere("realm=") => Ok(true),
        "pam_krb5" => has_realm(host),
        "pam_ldap" | "pam_ldapd" if elsewhere("config=") => {
            Err(Unknown::new(Cause::Undecidable, format!("{module} has its settings elsewhere")))
        }
        "pam_ldap" | "pam_ldapd" => {
            for path in LDAP_CONF {
                if read(host, path)?.is_some_and(|text| has_setting(&text, &["uri", "host"])) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        "pam_himmelblau" => {
            Ok(read(host, HIMMELBLAU_CONF)?.is_some_and(|text| has_setting(&text, &["domain", "domains"])))
        }
        _ => Ok(true),
    }
}

fn undecidable(path: &str, what: &str) -> Unknown {
    Unknown::new(Cause::Undecidable, format!("{path}: {what}"))
}

/// Returns whether a folder has a name that ends so.
fn has_names(host: &dyn Host, folder: &str, end: &str) -> Result<bool, Unknown> {
    match host.list(Path::new(folder)) {
        Ok(names) => Ok(names.iter().any(|name| name.to_string_lossy().ends_with(end))),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(false),
        Err(error) => Err(host::unknown(format!("list {folder}"), &error)),
    }
}

/// Returns a file; `None` without one.
fn read(host: &dyn Host, path: &str) -> Result<Option<String>, Unknown> {
    match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

/// Returns the lines of settings: without comments and what stands before them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Returns whether a setting of one of `names` has a value, with a blank or a sign before it.
fn has_setting(text: &str, names: &[&str]) -> bool {
    lines(text).any(|line| {
        let (name, value) = line.split_at(line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len()));
        let value = value.trim_start().trim_start_matches('=').trim();
        !value.is_empty() && names.iter().any(|own| name.eq_ignore_ascii_case(own))
    })
}

/// Returns whether smb.conf(5) makes the host a member of a domain, or its controller: alone, it has accounts of its own only.
///
/// # Errors
///
/// What may do so and is not read.
fn joins_a_domain(text: &str) -> Result<bool, &'static str> {
    let mut untold = None;
    for line in lines(text) {
        if line.trim_end().ends_with('\\') {
            untold = Some("a line that goes on in the next");
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        // Neither case nor blanks count in names.
        let name: String = name.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
        let value = value.trim().to_ascii_lowercase();
        match name.as_str() {
            "security" if !matches!(value.as_str(), "user" | "auto") => return Ok(true),
            "serverrole" if !matches!(value.as_str(), "standalone" | "standalone server" | "auto") => return Ok(true),
            "include" | "configfile" | "configbackend" => untold = Some("it takes settings from elsewhere"),
            _ => {}
        }
    }
    untold.map_or(Ok(false), Err)
}

/// Returns whether krb5.conf(5) names the realm that accounts are of.
fn has_realm(host: &dyn Host) -> Result<bool, Unknown> {
    let Some(text) = read(host, KRB5_CONF)? else { return Ok(false) };
    if has_setting(&text, &["default_realm"]) {
        return Ok(true);
    }
    for line in lines(&text) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("includedir"), Some(folder)) if folder.starts_with('/') => {
                let names = match host.list(Path::new(folder)) {
                    Ok(names) => names,
                    Err(error) if host::cause(&error) == Cause::Absent => continue,
                    Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
                };
                if names.len() > FILES {
                    return Err(Unknown::new(Cause::Limit, format!("{folder} has more files than are read")));
                }
                for name in names {
                    let path = Path::new(folder).join(name).display().to_string();
                    let Some(text) = read(host, &path)? else { continue };
                    if has_setting(&text, &["default_realm"]) {
                        return Ok(true);
                    }
                    if lines(&text).any(|line| line.starts_with("include")) {
                        return Err(undecidable(&path, "it takes settings from elsewhere"));
                    }
                }
            }
            (Some("include" | "includedir" | "module"), _) => {
                return Err(undecidable(KRB5_CONF, "it takes settings from elsewhere"));
            }
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samba_is_of_a_domain_by_its_security_or_its_role_alone() {
        // Debian's own, of a host that has accounts of its own alone.
        let alone = "[global]\n   workgroup = WORKGROUP\n; security = ads\n   server role = standalone server\n\
            [homes]\n   read only = yes\n";
        for (text, expected) in [
            (alone.to_owned(), Ok(false)),
            (String::new(), Ok(false)),
            (format!("{alone}security = user\n"), Ok(false)),
            ("[global]\n\tSecurity=ADS\n".to_owned(), Ok(true)),
            ("[global]\nserver  role = member server\ninclude = /x\n".to_owned(), Ok(true)),
            ("[global]\nserverrole = active directory domain controller\n".to_owned(), Ok(true)),
            (format!("{alone}include = registry\n"), Err("it takes settings from elsewhere")),
            (format!("{alone}config backend = registry\n"), Err("it takes settings from elsewhere")),
            ("[global]\nsecu\\\nrity = ads\n".to_owned(), Err("a line that goes on in the next")),
        ] {
            assert_eq!(joins_a_domain(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_setting_has_a_value() {
        for (text, expected) in [
            ("uri ldap://127.0.0.1/\n", true),
            (" default_realm = EXAMPLE.COM\n", true),
            ("default_realm=EXAMPLE.COM\n", true),
            ("# default_realm = EXAMPLE.COM\n", false),
            ("default_realm =\n", false),
            ("default_realms = EXAMPLE.COM\n", false),
        ] {
            assert_eq!(has_setting(text, &["uri", "default_realm"]), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[securityolAD =#;\\\\\n]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let _ = (joins_a_domain(&text), has_setting(&text, &["uri"]));
            }
        }
    }
}
