//! The only door to the machine: everything a probe may ask of it, live or recorded.
//!
//! Each answer is bounded, and each refusal keeps its cause. What is behind the door never decides anything: it hands
//! out bytes and numbers, which pure parsers read.

pub mod fanotify;
pub mod fscrypt;
pub mod live;
pub mod luks;
pub mod recorded;
pub mod recording;
pub mod script;
pub mod shadow;
pub mod xattr;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::{
    fact::{Cause, OsFamily, Reading, Unknown},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

pub use fscrypt::Policy;
pub use live::Live;
pub use luks::Luks;
pub use recorded::Recorded;
pub use recording::Recording;
pub use script::Script;

#[cfg(test)]
pub mod faulty;

/// Bytes of a small file of the kernel or of a configuration, at most.
pub const SMALL_FILE_BYTES: usize = 64 * 1024;
/// Bytes of a file that is read whole, at most.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;
/// Names in a folder, at most.
pub const FOLDER_NAMES: usize = 100_000;
/// Bytes of a tool's output, at most.
pub const TOOL_OUTPUT_BYTES: usize = 1024 * 1024;
/// Bytes of a tool's output that is handed over in pieces, at most: what rpm says of each file of some thousand packages.
pub const STREAM_OUTPUT_BYTES: usize = 512 * 1024 * 1024;
/// Longest run of a tool whose output is handed over in pieces.
pub const STREAM_TIME: Duration = Duration::from_secs(120);
/// Longest run of a tool.
pub const TOOL_TIME: Duration = Duration::from_secs(10);
/// Longest run of a script: what it asks Windows for may be slow to come.
pub const SCRIPT_TIME: Duration = Duration::from_secs(45);
/// Bytes of a packet filter's answer, at most.
pub const RULE_SET_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of the audit system's answer, at most.
pub const AUDIT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the longest file that a walk reads if nothing else is said: some seconds of hashing.
pub const LARGEST_FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Reads of the machine that a probe may make.
pub trait Host {
    /// Returns the kind of operating system, by which a probe chooses where to look.
    fn os_family(&self) -> OsFamily;

    /// Returns the content of the regular file at `path`.
    ///
    /// # Errors
    ///
    /// As open(2) and read(2) say; `FileTooLarge` beyond `limit_bytes`.
    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>>;

    /// Returns the first `bytes` bytes of the regular file at `path`, or all of it when it is shorter.
    ///
    /// # Errors
    ///
    /// As open(2) and read(2) say.
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(self.stream(path)?, bytes as u64), &mut start)?;
        Ok(start)
    }

    /// Returns a reader of the regular file at `path`, for files too large to be held.
    ///
    /// # Errors
    ///
    /// As open(2) says.
    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>>;

    /// Returns the names in `folder`, sorted.
    ///
    /// # Errors
    ///
    /// As open(2) says; `FileTooLarge` beyond [`FOLDER_NAMES`].
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Returns what lstat(2) says of `path`.
    ///
    /// # Errors
    ///
    /// As lstat(2) says.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Returns the target of the symbolic link at `path`.
    ///
    /// # Errors
    ///
    /// As readlink(2) says.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// Returns `/etc/shadow` without hashes, as [`shadow::without_hashes`] says.
    ///
    /// # Errors
    ///
    /// As [`Self::read`] says of a file of at most [`FILE_BYTES`].
    fn shadow(&self) -> io::Result<Vec<u8>> {
        Ok(shadow::without_hashes(&self.read(Path::new(shadow::SHADOW), FILE_BYTES)?))
    }

    /// Returns `/etc/gshadow` without hashes, as [`Self::shadow`] does of accounts.
    ///
    /// # Errors
    ///
    /// As [`Self::shadow`] says.
    fn gshadow(&self) -> io::Result<Vec<u8>> {
        Ok(shadow::without_hashes(&self.read(Path::new(shadow::GSHADOW), FILE_BYTES)?))
    }

    /// Returns what the kernel says of itself and of the hardware.
    ///
    /// # Errors
    ///
    /// `Unsupported` on a host of another kind.
    fn machine(&self) -> io::Result<Machine>;

    /// Returns whether the kernel calls its clock synchronised: adjtimex(2) without `STA_UNSYNC`.
    ///
    /// # Errors
    ///
    /// As adjtimex(2) says.
    fn clock_is_synchronized(&self) -> io::Result<bool>;

    /// Returns what the kernel says of its clock, as adjtimex(2) without any mode.
    ///
    /// # Errors
    ///
    /// As adjtimex(2) says.
    fn clock(&self) -> io::Result<KernelClock>;

    /// Returns how much of the file system that is mounted at `path` is used, as statvfs(3).
    ///
    /// # Errors
    ///
    /// As statvfs(3) says.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Returns the answer of the kernel's audit system: netlink messages, one after the other.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_AUDIT_CONTROL, `ConnectionRefused` in a container.
    fn audit(&self, query: AuditQuery) -> io::Result<Vec<u8>>;

    /// Returns which programs hold the sockets of `inodes`.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be listed.
    fn socket_owners(&self, inodes: &BTreeSet<u64>) -> io::Result<SocketOwners>;

    /// Returns what the LUKS header of `device` (a path below `/dev`) says. Nothing secret is read.
    ///
    /// # Errors
    ///
    /// As open(2) says; `InvalidData` when it has no LUKS header.
    fn luks(&self, device: &Path) -> io::Result<Luks>;

    /// Returns the fscrypt policy of the folder or file at `path`, which is not followed if it is a link.
    ///
    /// # Errors
    ///
    /// As open(2) says, `ENOTDIR` when it is neither; `ENODATA` when it has none, `EOPNOTSUPP` when the file system is not
    /// set up for any, `ENOTTY` when its kind has no fscrypt.
    fn encryption_policy(&self, path: &Path) -> io::Result<Policy>;

    /// Returns the kernel's answer to a dump of its nf_tables objects: netlink messages, one after the other.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_NET_ADMIN, `Unsupported` where the kernel has no nf_tables.
    fn nf_tables(&self, dump: Dump) -> io::Result<Vec<u8>>;

    /// Returns the elements of an nf_tables set or map: netlink messages, as [`Self::nf_tables`]. `family` is its `NFPROTO_` number.
    ///
    /// # Errors
    ///
    /// As [`Self::nf_tables`]; `NotFound` when there is no such set.
    fn nf_elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<u8>>;

    /// Returns the legacy rules of `table` in `family`: `struct ipt_getinfo` and then `struct ipt_get_entries`.
    ///
    /// # Errors
    ///
    /// As getsockopt(2) says.
    fn iptables(&self, family: Family, table: &str) -> io::Result<Vec<u8>>;

    /// Returns the standard output of `tool` run with `args`.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is not installed, `TimedOut`, `FileTooLarge`, or another error when it fails.
    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>>;

    /// Hands the standard output of `tool` run with `args` to `visit` in pieces: for one that is too large to be held.
    ///
    /// # Errors
    ///
    /// As [`Self::run`], with the bounds [`STREAM_OUTPUT_BYTES`] and [`STREAM_TIME`], or what `visit` returns. Pieces may have been
    /// handed over before.
    fn run_streamed(
        &self,
        tool: Tool,
        args: &[&str],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        visit(&self.run(tool, args)?)
    }

    /// Returns whether what it answers is kept as a capture: what serves only looks to come need not be asked then.
    fn is_recording(&self) -> bool {
        false
    }

    /// Shows `visitor` the entry `root` and everything below it without following links, each folder's names in byte order and a
    /// folder before what is in it, and reads what it wants of them.
    ///
    /// # Errors
    ///
    /// When `root` itself is not there or is a folder that cannot be opened, when the time is over, or what the visitor returns.
    fn walk(&self, root: &Path, pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()>;

    /// Returns digests of the content of the regular file at `path`, which is `root` or below it. Below the folder that holds `root` no
    /// link is followed, so that whoever may write there leads to nothing else.
    ///
    /// # Errors
    ///
    /// As openat2(2) and read(2) say.
    fn digests(&self, root: &Path, path: &Path) -> io::Result<Digests>;
}

/// How fast a walk may go, and how far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Threads that read and hash, the caller's among them, of which at most 8 are used.
    pub readers: usize,
    /// Whether what is found of an entry is told before the next one is shown; the caller's thread then reads alone, and slower.
    pub at_once: bool,
    /// Bytes of content that are read in a second, at most, of all readers together; 0 is without limit.
    pub bytes_per_second: u64,
    /// Whether mount points below the root are crossed.
    pub cross_mounts: bool,
    /// Bytes of the longest file that is read, holes counted. One that is longer is found with the error `FileTooLarge`.
    pub largest_file_bytes: u64,
    /// Bytes of the files of one owner other than root that a walk reads, at most, holes, other tries and attributes counted, and of
    /// all such owners four times as many; 0 is without limit. What is beyond is found with the error `FileTooLarge`.
    pub owner_bytes: u64,
    /// Folder for the unlinked temporary file of names, for folders that have more than may be held; `None` is the system's.
    pub spill_folder: Option<PathBuf>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            readers: 1,
            at_once: false,
            bytes_per_second: 0,
            cross_mounts: false,
            largest_file_bytes: LARGEST_FILE_BYTES,
            owner_bytes: 0,
            spill_folder: None,
        }
    }
}

/// What a visitor wants of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// No more than it was shown. A folder is gone into.
    Nothing,
    /// No more than it was shown, and nothing of what is below it.
    NothingBelow,
    /// Its extended attributes and a link's target, and no file's content. A folder is gone into.
    Attributes,
    /// A file's content, a link's target, and the extended attributes. A folder is gone into.
    Read,
}

impl Want {
    /// Returns whether anything is read of the entry.
    pub fn is_read(self) -> bool {
        match self {
            Self::Nothing | Self::NothingBelow => false,
            Self::Attributes | Self::Read => true,
        }
    }
}

/// Sees the entries of a walk.
///
/// [`Self::wants`] and [`Self::unreadable`] are called in the order of the walk. [`Self::found`] is called in the same order, but
/// may come later: entries that come after may have been shown meanwhile, a bounded number of them; see [`Pace::at_once`].
///
/// An entry of which something is wanted ends in one call of `found`, or, when it is a folder that cannot be opened, in one of
/// `unreadable`. A folder that was found and cannot be gone into has both, `found` being the one that may come later.
pub trait Visitor {
    /// Takes an entry with what lstat(2) says of it.
    ///
    /// # Errors
    ///
    /// An error ends the walk.
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want>;

    /// Takes an entry that cannot be looked at, or a folder that cannot be gone into, after it was shown to [`Self::wants`]: nothing is
    /// known of what is below it.
    ///
    /// A mount point that is not crossed has the error `CrossesDevices`; a folder that is too deep, or has more names than a walk
    /// sorts, `FileTooLarge`; one that was moved or replaced meanwhile, `InvalidData`.
    ///
    /// # Errors
    ///
    /// An error ends the walk.
    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()>;

    /// Takes what was read of an entry of which something was wanted, or why it could not be. Its metadata are those that it had while
    /// it was read, which may differ from those shown before.
    ///
    /// # Errors
    ///
    /// An error ends the walk.
    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()>;
}

/// Kind of a file-system entry.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the name says it")]
pub enum EntryKind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    CharacterDevice,
    BlockDevice,
    /// None of these, or one of the last four where an older capture or baseline does not say which.
    Other,
}

impl EntryKind {
    /// Returns whether an entry is of one kind with `other`, as far as both are told.
    pub fn is_like(self, other: Self) -> bool {
        let is_special = |kind| !matches!(kind, Self::File | Self::Folder | Self::Link);
        self == other || (self == Self::Other || other == Self::Other) && is_special(self) && is_special(other)
    }
}

/// What lstat(2) says of an entry.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Metadata {
    /// Kind.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Last change of the content, cut to microseconds; `None` outside the range of [`Timestamp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Permission bits, the low twelve.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device that holds it: major and minor.
    pub device: (u32, u32),
    /// Number of the inode.
    pub inode: u64,
    /// Hard links; 0 where a capture does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    /// Last change of the inode in nanoseconds since 1970; `None` where a capture does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_nanos: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Metadata {
    /// Returns when the content was last changed.
    pub fn modified_time(&self) -> Reading<Timestamp> {
        time_reading(self.modified)
    }
}

/// Returns the reading of a time that the host has; `None` is one that no [`Timestamp`] can name.
pub fn time_reading(time: Option<Timestamp>) -> Reading<Timestamp> {
    time.map_or_else(|| Reading::unknown(Cause::Limit, "time is outside the years 1970 to 2999"), Reading::Known)
}

/// An entry that a walk read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Scanned {
    /// What fstat(2) says of it.
    pub metadata: Metadata,
    /// SHA-256 of a file's content or of a link's target; `None` for others, and for a file whose content was not wanted.
    #[serde(default, with = "recorded::hex_digest", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<[u8; 32]>,
    /// Extended attributes, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<muster_proto::fact::ExtendedAttribute>,
}

/// Digests of one read of a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Digests {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// MD5, which dpkg's database holds of every file that it installed.
    pub md5: [u8; 16],
}

/// What the kernel says of itself and of the hardware.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// Name of the host, as in gethostname(2).
    pub hostname: String,
    /// Release of the kernel, as `uname -r`.
    pub release: String,
    /// Machine type, as `uname -m`.
    pub machine: String,
    /// Logical processors that are online.
    pub processors: u64,
    /// Physical memory.
    pub memory_bytes: u64,
}

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KernelClock {
    /// Without `STA_UNSYNC`.
    pub synchronized: bool,
    /// Correction still to be made, in nanoseconds.
    pub offset_nanos: i64,
    /// Most that it can be off, in microseconds.
    pub max_error_micros: i64,
    /// What it is off by estimate, in microseconds.
    pub estimated_error_micros: i64,
}

/// How much of a file system is used, in its own blocks, as statvfs(3).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Space {
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Blocks that are free for an ordinary user.
    pub available: u64,
    /// Inodes; 0 where there is no bound.
    pub inodes: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
}

/// Which programs hold sockets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SocketOwners {
    /// Name of the program (its comm) by inode of the socket: of several, the one with the lowest process id.
    pub programs: BTreeMap<u64, String>,
    /// Whether some process did not show its files.
    pub is_partial: bool,
}

/// A dump of nf_tables objects of every family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the name says it")]
pub enum Dump {
    Tables,
    Chains,
    Rules,
    Sets,
}

impl Dump {
    /// Returns its name in captures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Chains => "chains",
            Self::Rules => "rules",
            Self::Sets => "sets",
        }
    }
}

/// What the kernel's audit system is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the name says it")]
pub enum AuditQuery {
    Status,
    Rules,
}

impl AuditQuery {
    /// Returns its name in captures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Rules => "rules",
        }
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs, reason = "the name says it")]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// A program that probes may run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// Prints apt's settings, whose files have includes, scopes and directives that only apt reads rightly.
    AptConfig,
    /// Tells of System Integrity Protection of macOS, which has no other public interface.
    Csrutil,
    /// Tells of the volumes of APFS, whose encryption no file and no call of the C library shows.
    Diskutil,
    /// Tells whether FileVault waits for a user to log in or out, which diskutil(8) does not.
    Fdesetup,
    /// Tells which disks of macOS are attached images, which mount(8) and the lists of diskutil(8) do not.
    Hdiutil,
    /// Tells of the hardware of a Mac: the registry has no other interface than a framework.
    Ioreg,
    /// Tells which file systems macOS has mounted.
    Mount,
    /// Tells of the packet filter of macOS, whose device has no stable interface.
    Pfctl,
    /// Asks Windows one fixed question: its management classes have no interface that this build could call without a library.
    PowerShell(Script),
    /// Tells of the application firewall of macOS, which keeps its settings in no file since macOS 15.
    Socketfilterfw,
    /// Tells of Gatekeeper of macOS.
    Spctl,
    /// Tells numbers of the kernel of macOS.
    Sysctl,
    /// Prints the encryption of ZFS datasets, which no file tells, and `/dev/zfs` only by an interface that each version changes.
    Zfs,
    /// Lists what rpm installed, whose database is of four formats that rpm alone reads rightly.
    Rpm,
}

impl Tool {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AptConfig => "apt-config",
            Self::Csrutil => "csrutil",
            Self::Diskutil => "diskutil",
            Self::Fdesetup => "fdesetup",
            Self::Hdiutil => "hdiutil",
            Self::Ioreg => "ioreg",
            Self::Mount => "mount",
            Self::Pfctl => "pfctl",
            Self::PowerShell(script) => script.name(),
            Self::Socketfilterfw => "socketfilterfw",
            Self::Spctl => "spctl",
            Self::Sysctl => "sysctl",
            Self::Zfs => "zfs",
            Self::Rpm => "rpm",
        }
    }

    /// Returns where the program may live; absolute, so that `PATH` has no say.
    pub fn paths(self) -> &'static [&'static str] {
        match self {
            Self::AptConfig => &["/usr/bin/apt-config"],
            Self::Csrutil => &["/usr/bin/csrutil"],
            Self::Diskutil => &["/usr/sbin/diskutil"],
            Self::Fdesetup => &["/usr/bin/fdesetup"],
            Self::Hdiutil => &["/usr/bin/hdiutil"],
            Self::Ioreg => &["/usr/sbin/ioreg"],
            Self::Mount => &["/sbin/mount"],
            Self::Pfctl => &["/sbin/pfctl"],
            // Windows PowerShell 5.1, which is part of Windows. A system on another drive is not looked at.
            Self::PowerShell(_) => &["C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe"],
            Self::Socketfilterfw => &["/usr/libexec/ApplicationFirewall/socketfilterfw"],
            Self::Spctl => &["/usr/sbin/spctl"],
            Self::Sysctl => &["/usr/sbin/sysctl"],
            Self::Zfs => &["/usr/sbin/zfs", "/sbin/zfs", "/usr/local/sbin/zfs"],
            Self::Rpm => &["/usr/bin/rpm", "/bin/rpm"],
        }
    }
}

impl Tool {
    /// Returns how long it may run.
    pub fn time_limit(self) -> Duration {
        match self {
            Self::PowerShell(_) => SCRIPT_TIME,
            _ => TOOL_TIME,
        }
    }

    /// Returns statuses other than 0 with which it ends when it did tell: spctl(8) ends with 1 where assessments are disabled. What it
    /// printed says whether it was that.
    pub fn telling_statuses(self) -> &'static [i32] {
        match self {
            Self::Spctl => &[1],
            _ => &[],
        }
    }
}

/// Returns bytes of the system's randomness: for names and keys of what stays on the host. Signing keys are of the library that signs.
///
/// # Errors
///
/// When there is none.
pub fn random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Returns why `error` keeps a value from being told.
pub fn cause(error: &io::Error) -> Cause {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied => Cause::Forbidden,
        ErrorKind::NotFound | ErrorKind::NotADirectory => Cause::Absent,
        ErrorKind::FileTooLarge | ErrorKind::OutOfMemory => Cause::Limit,
        ErrorKind::TimedOut => Cause::TimedOut,
        // Another file system is left out on purpose.
        ErrorKind::Unsupported | ErrorKind::CrossesDevices => Cause::Unsupported,
        ErrorKind::InvalidData => Cause::Garbled,
        // ENODEV and ENXIO: the driver of the file is not there. EPROTONOSUPPORT and EAFNOSUPPORT: the kernel lacks it.
        _ => match error.raw_os_error() {
            Some(6 | 19) => Cause::Absent,
            Some(93 | 97) => Cause::Unsupported,
            _ => Cause::Failed,
        },
    }
}

/// Returns the unknown of an `error` of trying `what`, such as `read /etc/os-release`.
pub fn unknown(what: impl std::fmt::Display, error: &io::Error) -> Unknown {
    Unknown::new(cause(error), format!("{what}: {error}"))
}

/// Returns the reading of a `result` of trying `what`.
pub fn reading<T>(what: impl std::fmt::Display, result: io::Result<T>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(error) => Reading::Unknown { unknown: unknown(what, &error) },
    }
}

/// Returns the bytes of `path`.
pub fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// Returns the path of `bytes`.
#[cfg(unix)]
pub fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Returns the path of `bytes`, of which those that are not UTF-8 are replaced.
#[cfg(not(unix))]
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_cause() {
        let os = io::Error::from_raw_os_error;
        for (error, expected) in [
            (os(13), Cause::Forbidden),
            (os(1), Cause::Forbidden),
            (os(2), Cause::Absent),
            (os(20), Cause::Absent),
            (os(19), Cause::Absent),
            (os(97), Cause::Unsupported),
            (os(95), Cause::Unsupported),
            (os(5), Cause::Failed),
            (io::ErrorKind::FileTooLarge.into(), Cause::Limit),
            (io::ErrorKind::TimedOut.into(), Cause::TimedOut),
            (io::ErrorKind::CrossesDevices.into(), Cause::Unsupported),
            (io::ErrorKind::InvalidData.into(), Cause::Garbled),
        ] {
            assert_eq!(cause(&error), expected, "{error}");
        }
    }
}
