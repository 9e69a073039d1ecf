//! Variables of sessions, as pam_env(8) and environment.d(5) have them: by some a desktop takes its settings from elsewhere than is read.

use std::path::{Path, PathBuf};

use muster_proto::fact::{Cause, Desktop, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Files of the host.
const FILES: [&str; 2] = ["/etc/environment", "/etc/security/pam_env.conf"];
/// Folders of the host, whose files end in `.conf`.
const FOLDERS: [&str; 4] =
    ["/etc/environment.d", "/run/environment.d", "/usr/local/lib/environment.d", "/usr/lib/environment.d"];
/// The same of an account.
const OWN_FILE: &str = ".pam_environment";
const OWN_FOLDER: &str = ".config/environment.d";
/// Files of one folder, at most.
const MOST: usize = 64;
/// By these dconf and GSettings, or KConfig, look elsewhere.
const GNOME: [&str; 4] = ["DCONF_PROFILE", "GSETTINGS_BACKEND", "HOME", "XDG_CONFIG_HOME"];
const KDE: [&str; 3] = ["HOME", "XDG_CONFIG_DIRS", "XDG_CONFIG_HOME"];
/// What changes nothing.
const USUAL: [&str; 2] = ["XDG_CONFIG_HOME=$HOME/.config", "XDG_CONFIG_HOME=${HOME}/.config"];

/// Those variables that the files of the host set for every session, each with its file.
pub struct Environment(Result<Vec<(PathBuf, &'static str)>, Unknown>);

impl Environment {
    pub fn look(host: &dyn Host) -> Self {
        Self(set(host, &FILES.map(PathBuf::from), &FOLDERS.map(PathBuf::from)))
    }

    /// Checks that sessions of the account with `home`, or of an account without files of its own, have no variable by which their
    /// desktop takes its settings from elsewhere.
    pub fn check(&self, host: &dyn Host, desktop: Desktop, home: Option<&Path>) -> Result<(), Unknown> {
        let variables: &[&str] = match desktop {
            Desktop::Gnome => &GNOME,
            Desktop::Kde => &KDE,
            Desktop::Other => return Ok(()),
        };
        let mut set_variables = self.0.clone()?;
        if let Some(home) = home {
            set_variables.extend(set(host, &[home.join(OWN_FILE)], &[home.join(OWN_FOLDER)])?);
        }
        match set_variables.iter().find(|(_, variable)| variables.contains(variable)) {
            Some((path, variable)) => {
                Err(Unknown::new(Cause::Undecidable, format!("{} sets {variable}", path.display())))
            }
            None => Ok(()),
        }
    }
}

/// Returns the variables that files and those of folders set.
fn set(host: &dyn Host, files: &[PathBuf], folders: &[PathBuf]) -> Result<Vec<(PathBuf, &'static str)>, Unknown> {
    let mut paths = files.to_vec();
    for folder in folders {
        let names = match host.list(folder) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            Err(error) => return Err(host::unknown(format!("list {}", folder.display()), &error)),
        };
        if names.len() > MOST {
            let detail = format!("{} has more than {MOST} files", folder.display());
            return Err(Unknown::new(Cause::Limit, detail));
        }
        paths.extend(
            names.iter().filter(|name| name.to_string_lossy().ends_with(".conf")).map(|name| folder.join(name)),
        );
    }
    let mut found = Vec::new();
    for path in paths {
        match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => {
                let of_file = variables(&String::from_utf8_lossy(&bytes));
                found.extend(of_file.into_iter().map(|variable| (path.clone(), variable)));
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        }
    }
    Ok(found)
}

/// Returns those variables of desktops that a file sets, whichever of its readers takes it: a backslash may or may not join a line to the
/// next, and either kind of end is one.
fn variables(text: &str) -> Vec<&'static str> {
    let joined = text.replace("\\\n", "");
    let is_set =
        |variable: &&&str| [text, &joined].iter().any(|text| text.split(['\n', '\r']).any(|line| sets(line, variable)));
    let all = GNOME.iter().chain(KDE.iter().filter(|variable| !GNOME.contains(variable)));
    all.filter(is_set).copied().collect()
}

fn sets(line: &str, variable: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("export").filter(|line| line.starts_with(char::is_whitespace)).unwrap_or(line).trim();
    let name = line.split(|c: char| c == '=' || c.is_whitespace()).next();
    name == Some(variable) && !USUAL.contains(&line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    #[test]
    fn a_variable_is_set_by_the_name_at_the_start_of_a_line() {
        for (text, expected) in [
            ("PATH=/bin\nDCONF_PROFILE=/x\n", &["DCONF_PROFILE"] as &[&str]),
            (" export DCONF_PROFILE=x", &["DCONF_PROFILE"]),
            ("XDG_CONFIG_HOME DEFAULT=@{HOME}/x", &["XDG_CONFIG_HOME"]),
            ("XDG_CONFIG_HOME=/home/bob/.c", &["XDG_CONFIG_HOME"]),
            ("A=b\rGSETTINGS_BACKEND=memory", &["GSETTINGS_BACKEND"]),
            ("DCONF_\\\nPROFILE=/x", &["DCONF_PROFILE"]),
            ("# \\\nDCONF_PROFILE=/x", &["DCONF_PROFILE"]),
            ("XDG_CONFIG_DIRS=/x\nHOME=/y", &["HOME", "XDG_CONFIG_DIRS"]),
            ("XDG_CONFIG_HOME=$HOME/.config\nXDG_DATA_HOME=${XDG_CONFIG_HOME}/x", &[]),
            ("XDG_CONFIG_HOME=$HOME/.config\\\nx", &["XDG_CONFIG_HOME"]),
            // As stock files have it.
            ("# DCONF_PROFILE=x\n#DISPLAY\t\tDEFAULT=${REMOTEHOST}:0.0 OVERRIDE=${DISPLAY}\n", &[]),
            ("PATH=\"/usr/local/sbin:/usr/bin\"\nLANG=C\nQT_ACCESSIBILITY=1\nGTK_IM_MODULE=ibus\n", &[]),
            ("MY_DCONF_PROFILE=x", &[]),
        ] {
            assert_eq!(variables(text), expected, "{text}");
        }
    }

    #[test]
    fn a_variable_of_any_file_makes_the_settings_of_its_desktop_unknown() {
        let with = |path: &str, text: &str, desktop| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
                .unwrap();
            let place = folder.path().join("files").join(&path[1..]);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
            let mut host = Recorded::at(folder.path()).unwrap();
            let index = host.index_mut();
            let absent = || Failure::of(&std::io::ErrorKind::NotFound.into());
            for file in FILES.into_iter().chain(["/home/bob/.pam_environment"]).filter(|file| *file != path) {
                index.errors.insert(format!("read {file}"), absent());
            }
            let path_text = |path: &str| muster_proto::fact::PathText::from_bytes(path.as_bytes());
            for folder in FOLDERS.into_iter().chain(["/home/bob/.config/environment.d"]) {
                match path.strip_prefix(folder).and_then(|name| name.strip_prefix('/')) {
                    Some(name) => drop(index.lists.insert(path_text(folder), vec![path_text(name)])),
                    None => drop(index.errors.insert(format!("list {folder}"), absent())),
                }
            }
            let environment = Environment::look(&host);
            [None, Some(Path::new("/home/bob"))]
                .map(|home| environment.check(&host, desktop, home).map_err(|unknown| unknown.detail.to_string()))
        };
        let profile = |path: &str, desktop| with(path, "DCONF_PROFILE=/x\n", desktop);
        let told = |path: &str| Err(format!("{path} sets DCONF_PROFILE"));
        for path in FILES.into_iter().chain(["/etc/environment.d/x.conf", "/usr/lib/environment.d/x.conf"]) {
            assert_eq!(profile(path, Desktop::Gnome), [told(path), told(path)]);
            assert_eq!(profile(path, Desktop::Kde), [Ok(()), Ok(())]);
        }
        for path in ["/home/bob/.pam_environment", "/home/bob/.config/environment.d/x.conf"] {
            assert_eq!(profile(path, Desktop::Gnome), [Ok(()), told(path)]);
        }
        assert_eq!(profile("/etc/environment.d/x.conf.bak", Desktop::Gnome), [Ok(()), Ok(())]);
        for desktop in [Desktop::Gnome, Desktop::Kde] {
            let found = with("/etc/environment", "XDG_CONFIG_HOME=/home/bob/.c\n", desktop);
            assert!(found.iter().all(Result::is_err), "{desktop:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[exportHOME=\\\\\n\r \"#]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                variables(&text);
            }
        }
    }
}
