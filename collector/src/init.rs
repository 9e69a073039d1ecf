//! Makes a collector: its folder, authority, log with its first entries, and the first admin's credential.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::{
    caller::{Caller, Role},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

use crate::{
    acts,
    config::{self, Config},
    control::Catalogue,
    data::Data,
    log::{self, Key, Log},
    pki::{self, Authority, RequestedKey},
    run,
};

/// Life of the first admin's credential: one year.
const ADMIN_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

/// A collector cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not one.
    #[error("{name:?} is no name for a collector: use 1 to 64 of a-z, 0-9, '.', '_' and '-', such as c1")]
    Name {
        /// What was given.
        name: String,
    },
    /// A further name is not one.
    #[error("--san {name:?} is neither a DNS name nor an IP address; name neither port nor scheme")]
    San {
        /// What was given.
        name: String,
    },
    /// There is something already.
    #[error("{} is not empty: a collector is made in an empty folder; to start over, remove it and all its evidence", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be used.
    #[error("failed to {what} {}", path.display())]
    Folder {
        /// What was tried.
        what: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority cannot be made.
    #[error(transparent)]
    Authority(#[from] pki::Error),
    /// The log cannot be made.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The log's key cannot be made.
    #[error("failed to make the log's key")]
    Key(#[from] log::NoteError),
    /// The admin's key cannot be made.
    #[error("failed to make the admin's key")]
    AdminKey(#[from] rcgen::Error),
    /// The admin's own request was refused.
    #[error("failed to issue the admin's credential")]
    AdminRequest(#[from] pki::CsrError),
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data folder; absent or empty.
    pub data: PathBuf,
    /// Name of the collector.
    pub name: String,
    /// Where it will listen.
    pub listen: SocketAddr,
    /// Further names for its certificate.
    pub names: Vec<String>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What hosts pin.
    pub ca_pin: String,
    /// Key that verifies the log's checkpoints.
    pub log_key: String,
    /// The first admin's credential.
    pub admin: PathBuf,
    /// Its end.
    pub admin_expires: Timestamp,
    /// Names in the collector's own certificate: it can be reached by no other.
    pub names: Vec<String>,
}

impl Plan {
    /// Returns the address by which people and programs on this machine reach the collector.
    pub fn local_url(&self) -> String {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            // Where it listens is no address to connect to, and in no certificate.
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("https://{address}")
    }

    /// Returns the address by which agents on other hosts reach the collector: by a name of its certificate that is most likely theirs
    /// too. `None` when it listens for this machine alone.
    pub fn agents_url(&self) -> Option<String> {
        let address = self.listen;
        if address.ip().is_loopback() {
            return None;
        }
        let host = match self.names.first() {
            Some(name) if name.parse::<Ipv6Addr>().is_ok() => format!("[{name}]"),
            Some(name) => name.clone(),
            None if address.ip().is_unspecified() => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                if config::is_host(&host) { host } else { "NAME".to_owned() }
            }
            None => return Some(format!("https://{address}")),
        };
        Some(format!("https://{host}:{}", address.port()))
    }
}

/// Makes a collector. On failure nothing is left in the folder.
///
/// # Errors
///
/// When a name is none, the folder is not empty, or something cannot be written.
pub fn init(plan: &Plan, now: Timestamp) -> Result<Made, Error> {
    if !muster_proto::caller::is_name(&plan.name) {
        return Err(Error::Name { name: plan.name.clone() });
    }
    if let Some(name) = plan.names.iter().find(|name| !config::is_host(name)) {
        return Err(Error::San { name: name.clone() });
    }
    let was_there = prepare(&plan.data)?;
    let made = fill(plan, now).and_then(|made| {
        hand_over(&plan.data)?;
        Ok(made)
    });
    if made.is_err() {
        clear(&plan.data, was_there);
    }
    made
}

fn folder(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { what, path, source }
}

/// Makes sure of an empty folder, and returns whether it was there.
fn prepare(data: &Path) -> Result<bool, Error> {
    match fs::read_dir(data) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(Error::Exists { path: data.to_owned() }),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            make_folder(data)?;
            Ok(false)
        }
        Err(source) => Err(folder("list", data)(source)),
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(folder("make", path))
}

fn fill(plan: &Plan, now: Timestamp) -> Result<Made, Error> {
    let data = Data::new(&plan.data);
    make_folder(&data.pki())?;
    make_folder(&data.snapshots())?;
    let authority = Authority::create(&data.pki(), &plan.name, now)?;
    let key = Key::generate(&plan.name)?;
    pki::write_secret(&data.log_key(), key.secret_text().as_bytes())?;
    let log_key = key.vkey().to_owned();
    Log::create(&data.log(), &key)?;

    let admin_key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::default().serialize_request(&admin_key)?;
    let requested = RequestedKey::from_csr(request.der())?;
    let admin = Caller::new(&plan.name, Role::Admin, "admin").map_err(|_| Error::Name { name: plan.name.clone() })?;
    let issued = authority.issue(&admin, &requested, now, ADMIN_LIFETIME)?;
    let catalogue = Catalogue::built_in();
    let (_, mut appender) = Log::open(&data.log(), key)?;
    for entry in [
        Entry::Act(acts::own_act(
            &plan.name,
            Act::CollectorCreated(v1::CollectorCreated {
                name: plan.name.clone(),
                log_key: log_key.clone(),
                ca_digest: authority.digest().as_bytes().to_vec(),
            }),
        )),
        Entry::Catalogue(catalogue.to_entry()),
        Entry::Act(acts::own_act(
            &plan.name,
            Act::CredentialIssued(v1::CredentialIssued {
                spiffe_id: admin.to_string(),
                serial: issued.serial.to_string(),
                expire_time: Some(issued.expires.to_wire()),
                key_digest: requested.digest().as_bytes().to_vec(),
            }),
        )),
    ] {
        let entry = v1::LogEntry { received_time: Some(now.to_wire()), entry: Some(entry) };
        appender.append(&[&entry.encode_to_vec()])?;
    }
    appender.commit()?;

    let credential = format!("{}{}{}", admin_key.serialize_pem(), issued.chain_pem, authority.bundle_pem());
    pki::write_secret(&data.admin(), credential.as_bytes())?;
    let mut config = Config::new(&plan.name);
    config.listen = plan.listen;
    config.names.clone_from(&plan.names);
    // Last: its presence says that the collector is complete.
    let path = data.config();
    fs::write(&path, config.to_toml()).map_err(folder("write", &path))?;
    fs::File::open(&plan.data).and_then(|folder| folder.sync_all()).map_err(folder("sync", &plan.data))?;
    Ok(Made {
        ca_pin: authority.pin(),
        log_key,
        admin: data.admin(),
        admin_expires: issued.expires,
        names: run::server_names(&config),
    })
}

/// Gives what was made to the owner of the folder: a package may have made it for the user that the collector runs as.
fn hand_over(data: &Path) -> Result<(), Error> {
    let owner = fs::metadata(data).map_err(folder("read", data))?;
    let mut paths = vec![data.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).map_err(folder("read", &path))?;
        if (metadata.uid(), metadata.gid()) != (owner.uid(), owner.gid()) {
            chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(folder("change the owner of", &path))?;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(folder("list", &path))? {
                paths.push(entry.map_err(folder("list", &path))?.path());
            }
        }
    }
    Ok(())
}

/// Removes what was made; the folder was empty or absent before. What cannot be removed stays: the error before this says why.
fn clear(data: &Path, keep_folder: bool) {
    if !keep_folder {
        let _ = fs::remove_dir_all(data);
        return;
    }
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_proto::time::{Clock as _, SystemClock};

    use super::*;
    use crate::members::Members;

    fn plan(data: &Path) -> Plan {
        Plan {
            data: data.to_owned(),
            name: "c1".to_owned(),
            listen: "127.0.0.1:7443".parse().unwrap(),
            names: vec!["muster.example".to_owned()],
        }
    }

    #[test]
    fn a_new_collector_has_an_admin_by_its_log_and_secrets_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let root = folder.path().join("data");
        let made = init(&plan(&root), now).unwrap();
        let data = Data::new(&root);
        for secret in [data.admin(), data.log_key(), data.pki().join("ca.key")] {
            assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600, "{}", secret.display());
        }
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Config::read(&data.config(), &config::Variables::default()).unwrap().names, ["muster.example"]);

        let key = Key::parse(&fs::read_to_string(data.log_key()).unwrap()).unwrap();
        let (log, _appender) = Log::open(&data.log(), key).unwrap();
        let entries = log.entries(0..log.size()).unwrap();
        assert_eq!(entries.len(), 3);
        let members = Members::load((0..).zip(&entries)).unwrap();
        let [credential] = members.credentials().try_into().unwrap();
        assert_eq!(credential.caller.to_string(), "spiffe://c1/admin/admin");
        assert_eq!(members.check(&credential.caller, credential.serial, now), Ok(()));
        assert_eq!(made.admin_expires, credential.expires);
        assert!(made.names.contains(&"muster.example".to_owned()), "{:?}", made.names);
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("evidence"), "x").unwrap();
        assert!(matches!(init(&plan(folder.path()), SystemClock.now()), Err(Error::Exists { .. })));
        assert_eq!(fs::read_to_string(folder.path().join("evidence")).unwrap(), "x");
    }

    #[test]
    fn whoever_is_told_an_address_can_connect_to_it() {
        let of = |listen: &str, names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            let plan = Plan { listen: listen.parse().unwrap(), names, ..plan(Path::new("/data")) };
            (plan.local_url(), plan.agents_url())
        };
        let some = |url: &str| Some(url.to_owned());
        assert_eq!(of("127.0.0.1:7443", &["a.example"]), ("https://127.0.0.1:7443".to_owned(), None));
        assert_eq!(
            of("0.0.0.0:7443", &["a.example", "b.example"]),
            ("https://127.0.0.1:7443".to_owned(), some("https://a.example:7443"))
        );
        assert_eq!(of("[::]:1", &["2001:db8::1"]), ("https://[::1]:1".to_owned(), some("https://[2001:db8::1]:1")));
        assert_eq!(of("10.0.0.1:7443", &[]), ("https://10.0.0.1:7443".to_owned(), some("https://10.0.0.1:7443")));
        let (_, by_host_name) = of("0.0.0.0:7443", &[]);
        assert!(!by_host_name.as_ref().unwrap().contains("0.0.0.0"), "{by_host_name:?}");
    }

    #[test]
    fn a_wrong_name_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let wrong = Plan { name: "C 1".to_owned(), ..plan(&data) };
        assert!(matches!(init(&wrong, SystemClock.now()), Err(Error::Name { .. })));
        let wrong = Plan { names: vec!["https://x".to_owned()], ..plan(&data) };
        assert!(matches!(init(&wrong, SystemClock.now()), Err(Error::San { .. })));
        assert!(!data.exists());
    }
}
