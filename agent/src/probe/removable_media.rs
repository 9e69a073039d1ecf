//! Storage that is plugged in by USB: whether the kernel may load a driver for it, and whether devices are let in at all.
//!
//! Three things keep it out for certain: a kernel without the driver, a modprobe.d(5) that never loads it, and USBGuard (or a
//! kernel that takes no new device) whose rules let no storage in. Rules of udev and polkit are programs in which everything is
//! possible: where some speak of storage, a host that nothing else closes is unknown rather than open.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use muster_proto::{
    fact::{Cause, Fact, Reading, RemovableMedia, RemovablePolicy, Text, Unknown},
    report,
};

use super::{Look, Probe};
use crate::host::{self, EntryKind, FILE_BYTES, Host, SMALL_FILE_BYTES};

/// Folders of modprobe.d(5): of two files of one name, the one in the folder named first is read.
const MODPROBE: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];
/// The driver as modules are named, and the one for newer devices, which needs it.
const DRIVER: &str = "usb_storage";
const UAS: &str = "uas";
/// What stands in an `install` line that never loads anything.
const NOTHING: [&str; 6] = ["/bin/true", "/bin/false", "/usr/bin/true", "/usr/bin/false", "/sbin/nologin", ":"];
const BUSES: &str = "/sys/bus/usb/devices";
const USBGUARD: &str = "/etc/usbguard";
const UDEV_RULES: &str = "/etc/udev/rules.d";
const POLKIT_RULES: &str = "/etc/polkit-1/rules.d";
/// Files of one folder that are read, at most.
const FILES: usize = 1_000;

/// The probe of `removable_media`.
pub struct RemovableMediaProbe;

impl Probe for RemovableMediaProbe {
    fn id(&self) -> report::Probe {
        report::Probe::RemovableMedia
    }

    fn name(&self) -> &'static str {
        "removable_media"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::RemovableMedia(Reading::Known(removable_media(look.host)))]
    }
}

/// What one mechanism comes to.
#[derive(Debug, Eq, PartialEq)]
enum Finding {
    /// It keeps storage out.
    Blocks,
    /// It has nothing to say.
    Silent,
    /// What it does has no sound reading.
    Untold(Unknown),
}

fn removable_media(host: &dyn Host) -> RemovableMedia {
    let mut mechanisms = BTreeSet::new();
    let loaded = driver_loaded(host);
    let findings = [
        driver(host, &loaded, &mut mechanisms),
        authorization(host, &mut mechanisms),
        rules(host, UDEV_RULES, speaks_of_storage, &mut mechanisms),
        rules(host, POLKIT_RULES, |line| line.contains("org.freedesktop.udisks2"), &mut mechanisms),
    ];
    let mut policy = Reading::Known(RemovablePolicy::Allow);
    if findings.contains(&Finding::Blocks) {
        policy = Reading::Known(RemovablePolicy::Block);
    } else if let Some(unknown) = findings.into_iter().find_map(|finding| match finding {
        Finding::Untold(unknown) => Some(unknown),
        Finding::Blocks | Finding::Silent => None,
    }) {
        policy = Reading::Unknown { unknown };
    }
    let mechanisms = mechanisms.iter().map(|mechanism| Text::cut(mechanism, 512)).collect();
    RemovableMedia { policy, mechanisms, driver_loaded: loaded }
}

/// A driver that is in the kernel, or that was loaded into it, has a folder (Documentation/ABI/stable/sysfs-module).
fn driver_loaded(host: &dyn Host) -> Reading<bool> {
    let folder = Path::new("/sys/module").join(DRIVER);
    match host.metadata(&folder) {
        Ok(_) => Reading::Known(true),
        Err(error) if host::cause(&error) == Cause::Absent => Reading::Known(false),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {}", folder.display()), &error) },
    }
}

/// Whether the kernel can get the driver.
fn driver(host: &dyn Host, loaded: &Reading<bool>, mechanisms: &mut BTreeSet<String>) -> Finding {
    match loaded {
        // What keeps it from being loaded comes too late.
        Reading::Known(true) => return Finding::Silent,
        Reading::Known(false) => {}
        Reading::Unknown { unknown } => return Finding::Untold(unknown.clone()),
    }
    match exists(host) {
        Ok(true) => {}
        Ok(false) => {
            mechanisms.insert("the kernel has no driver of USB storage".to_owned());
            return Finding::Blocks;
        }
        Err(unknown) => return Finding::Untold(unknown),
    }
    let cmdline = host.read(Path::new("/proc/cmdline"), SMALL_FILE_BYTES);
    if let Ok(bytes) = &cmdline
        && let Some(word) = blocking_word(&String::from_utf8_lossy(bytes))
    {
        mechanisms.insert(format!("/proc/cmdline: {word}"));
        return Finding::Blocks;
    }
    let finding = match modprobe(host) {
        Ok(modprobe) => modprobe.finding(mechanisms),
        Err(unknown) => Finding::Untold(unknown),
    };
    match (finding, cmdline) {
        (Finding::Silent, Err(error)) => Finding::Untold(host::unknown("read /proc/cmdline", &error)),
        (finding, _) => finding,
    }
}

/// Returns whether the running kernel has the driver as a module, which modprobe(8) would find.
fn exists(host: &dyn Host) -> Result<bool, Unknown> {
    let look = |path: &Path| match host.list(path) {
        Ok(names) => Ok(Some(names)),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("list {}", path.display()), &error)),
    };
    let is_modular = match host.metadata(Path::new("/proc/modules")) {
        Ok(_) => true,
        Err(error) if host::cause(&error) == Cause::Absent => false,
        Err(error) => return Err(host::unknown("look at /proc/modules", &error)),
    };
    // It is not in the kernel, or it had a folder; a kernel that loads no modules will not get it.
    if !is_modular {
        return Ok(false);
    }
    let release = host.machine().map_err(|error| host::unknown("uname", &error))?.release;
    for root in ["/lib/modules", "/usr/lib/modules"] {
        let root = Path::new(root).join(&release);
        if look(&root)?.is_none() {
            continue;
        }
        let names = look(&root.join("kernel/drivers/usb/storage"))?.unwrap_or_default();
        if names.iter().any(|name| name.to_string_lossy().starts_with("usb-storage.ko")) {
            return Ok(true);
        }
        // Modules of another place, which a distribution or an administrator adds.
        let updates = ["updates", "extra", "weak-updates"].iter().map(|name| look(&root.join(name)));
        if updates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().flatten().next().is_some() {
            return Err(Unknown::new(Cause::Undecidable, format!("{} has modules from elsewhere", root.display())));
        }
        return Ok(false);
    }
    Err(Unknown::new(Cause::Absent, format!("/lib/modules has nothing of the running kernel {release}")))
}

/// Returns the word of a kernel's command line that keeps the driver out: of the kernel itself, or of modprobe(8) for both drivers.
fn blocking_word(cmdline: &str) -> Option<&str> {
    let lists = |word: &str, key: &str, name: &str| {
        let names = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        names.is_some_and(|names| names.split(',').any(|own| own.replace('-', "_") == name))
    };
    let words = || cmdline.split_whitespace();
    let by_kernel = words().find(|word| lists(word, "module_blacklist", DRIVER));
    by_kernel.or_else(|| {
        let uas = words().any(|word| lists(word, "modprobe.blacklist", UAS));
        words().find(|word| uas && lists(word, "modprobe.blacklist", DRIVER))
    })
}

/// What modprobe.d(5) says of the driver: each with file and line.
#[derive(Debug, Default)]
struct Modprobe {
    installs_nothing: Option<String>,
    installs_something: Option<String>,
    blacklists: Option<String>,
    blacklists_uas: Option<String>,
}

impl Modprobe {
    fn add(&mut self, line: &str, at: &str) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (Some(word), Some(module)) = (words.next(), words.next()) else { return };
        let module = module.replace('-', "_");
        let found = || Some(format!("{at}: {}", line.trim()));
        match (word, module.as_str()) {
            ("install", DRIVER) => {
                let command: Vec<&str> = words.collect();
                if matches!(command.as_slice(), [nothing] if NOTHING.contains(nothing)) {
                    self.installs_nothing = found();
                } else {
                    self.installs_something = found();
                }
            }
            ("blacklist", DRIVER) => self.blacklists = found(),
            ("blacklist", UAS) => self.blacklists_uas = found(),
            ("install", UAS) => {
                let command: Vec<&str> = words.collect();
                if matches!(command.as_slice(), [nothing] if NOTHING.contains(nothing)) {
                    self.blacklists_uas = found();
                }
            }
            _ => {}
        }
    }

    fn finding(self, mechanisms: &mut BTreeSet<String>) -> Finding {
        let noted = [&self.installs_nothing, &self.installs_something, &self.blacklists, &self.blacklists_uas];
        mechanisms.extend(noted.into_iter().flatten().cloned());
        if let Some(line) = self.installs_something {
            return Finding::Untold(Unknown::new(Cause::Undecidable, line));
        }
        // The driver of newer devices needs the other, and so cannot be loaded without it; by the names of devices alone
        // (`blacklist`) it would still bring the other along.
        if self.installs_nothing.is_some() || self.blacklists.is_some() && self.blacklists_uas.is_some() {
            Finding::Blocks
        } else {
            Finding::Silent
        }
    }
}

fn modprobe(host: &dyn Host) -> Result<Modprobe, Unknown> {
    let mut files = BTreeMap::new();
    for folder in MODPROBE {
        match host.list(Path::new(folder)) {
            Ok(names) => {
                for name in names.into_iter().filter(|name| name.to_string_lossy().ends_with(".conf")).take(FILES) {
                    let path = Path::new(folder).join(&name);
                    files.entry(name).or_insert(path);
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        }
    }
    let mut modprobe = Modprobe::default();
    for path in files.values() {
        let bytes = match host.read(path, SMALL_FILE_BYTES) {
            Ok(bytes) => bytes,
            // A link to nothing, which hides a file of that name.
            Err(error) if is_hidden(host, path, &error) => continue,
            // So does a link to `/dev/null`.
            Err(error) if host::cause(&error) == Cause::Garbled => continue,
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        };
        for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            if is_garbled(line) {
                return Err(Unknown::new(Cause::Garbled, at));
            }
            modprobe.add(line, &at);
        }
    }
    Ok(modprobe)
}

/// Returns whether a file that its folder named could not be read because it is a link to nothing.
fn is_hidden(host: &dyn Host, path: &Path, error: &std::io::Error) -> bool {
    host::cause(error) == Cause::Absent && host.metadata(path).is_ok_and(|metadata| metadata.kind == EntryKind::Link)
}

/// Returns whether a line is no text. A comment may be of an older encoding.
fn is_garbled(line: &str) -> bool {
    line.split('#').next().unwrap_or_default().contains(char::REPLACEMENT_CHARACTER)
}

/// Whether the kernel takes new devices without being told to (`authorized_default`, Documentation/usb/authorization.rst), and
/// if not, whether USBGuard's rules let storage in.
fn authorization(host: &dyn Host, mechanisms: &mut BTreeSet<String>) -> Finding {
    let names = match host.list(Path::new(BUSES)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Finding::Silent,
        Err(error) => return Finding::Untold(host::unknown(format!("list {BUSES}"), &error)),
    };
    let mut buses = 0;
    for name in names.iter().filter(|name| name.to_string_lossy().starts_with("usb")) {
        let path = Path::new(BUSES).join(name).join("authorized_default");
        match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => match bytes.trim_ascii() {
                b"0" => buses += 1,
                // 1 lets in all, 2 those inside the machine, and -1 (of wireless devices) is a kernel's own choice.
                b"1" | b"2" | b"-1" => return Finding::Silent,
                _ => {
                    return Finding::Untold(Unknown::new(Cause::Garbled, format!("{} is no choice", path.display())));
                }
            },
            Err(error) => return Finding::Untold(host::unknown(format!("read {}", path.display()), &error)),
        }
    }
    if buses == 0 {
        return Finding::Silent;
    }
    mechanisms.insert(format!("{BUSES}: no bus takes new devices by itself"));
    match usbguard(host) {
        Ok(None) => Finding::Untold(Unknown::new(Cause::Undecidable, "who lets devices in is not known")),
        Ok(Some(Guard { implicit, rule: None })) if implicit != "allow" => {
            mechanisms.insert(format!("{USBGUARD}: no rule lets storage in"));
            Finding::Blocks
        }
        Ok(Some(Guard { rule: None, .. })) => Finding::Silent,
        Ok(Some(Guard { rule: Some(rule), .. })) => Finding::Untold(Unknown::new(Cause::Undecidable, rule)),
        Err(unknown) => Finding::Untold(unknown),
    }
}

/// What USBGuard is told.
struct Guard {
    /// What becomes of a device that no rule names.
    implicit: String,
    /// The first rule that may let storage in.
    rule: Option<String>,
}

/// Returns what USBGuard is told; `None` where it is not installed.
fn usbguard(host: &dyn Host) -> Result<Option<Guard>, Unknown> {
    let config = Path::new(USBGUARD).join("usbguard-daemon.conf");
    let read = |path: &Path| match host.read(path, FILE_BYTES) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Unknown::new(Cause::Garbled, format!("{} is no text", path.display()))),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    };
    let Some(config) = read(&config)? else { return Ok(None) };
    let setting = |name: &str| {
        let value = |line: &str| line.trim().strip_prefix(name)?.strip_prefix('=').map(|value| value.trim().to_owned());
        config.lines().filter_map(value).next_back()
    };
    if let Some(name) =
        ["RuleFile", "RuleFolder"].into_iter().find(|name| setting(name).is_some_and(|value| value.is_empty()))
    {
        return Err(Unknown::new(Cause::Garbled, format!("{USBGUARD}/usbguard-daemon.conf: {name} names nothing")));
    }
    let mut files = vec![setting("RuleFile").unwrap_or_else(|| format!("{USBGUARD}/rules.conf"))];
    let folder = setting("RuleFolder").unwrap_or_else(|| format!("{USBGUARD}/rules.d"));
    match host.list(Path::new(&folder)) {
        Ok(names) => {
            let names = names.iter().map(|name| name.to_string_lossy()).filter(|name| name.ends_with(".conf"));
            files.extend(names.take(FILES).map(|name| format!("{folder}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    }
    let mut rule = None;
    for file in files {
        let text = read(Path::new(&file))?.unwrap_or_default();
        let found = text.lines().enumerate().find(|(_, line)| may_let_storage_in(line));
        rule = rule.or(found.map(|(number, line)| format!("{file}:{}: {}", number + 1, line.trim())));
    }
    let implicit = setting("ImplicitPolicyTarget").unwrap_or_else(|| "block".to_owned());
    Ok(Some(Guard { implicit, rule }))
}

/// Returns whether a rule of usbguard-rules.conf(5) may let storage in: it allows, and does not name interfaces of other kinds
/// alone. 08 is the class of mass storage.
fn may_let_storage_in(line: &str) -> bool {
    let Some(rest) =
        line.trim().strip_prefix("allow").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    else {
        return false;
    };
    let Some((_, interfaces)) = rest.split_once("with-interface") else { return true };
    let interfaces = interfaces.trim_start();
    let list = match interfaces.split_once('{') {
        Some((operator, list))
            if operator.split_whitespace().all(|word| matches!(word, "one-of" | "equals" | "equals-ordered")) =>
        {
            list.split('}').next().unwrap_or_default()
        }
        Some(_) => return true,
        None => interfaces.split_whitespace().next().unwrap_or_default(),
    };
    // A device that is one of several kinds may be storage, too.
    let is_other = |word: &str| word.len() == 8 && !word.starts_with("08:") && !word.starts_with('*');
    list.split_whitespace().next().is_none()
        || !list.split_whitespace().all(is_other)
        || interfaces.starts_with("one-of")
}

/// Notes lines of the rules in a folder that speak of storage.
fn rules(host: &dyn Host, folder: &str, speaks: fn(&str) -> bool, mechanisms: &mut BTreeSet<String>) -> Finding {
    let names = match host.list(Path::new(folder)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Finding::Silent,
        Err(error) => return Finding::Untold(host::unknown(format!("list {folder}"), &error)),
    };
    let mut finding = Finding::Silent;
    for name in names.iter().filter(|name| name.to_string_lossy().ends_with(".rules")).take(FILES) {
        let path = Path::new(folder).join(name);
        let bytes = match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => bytes,
            // A link to nothing or to `/dev/null`, which hides a file of that name.
            Err(error) if host::cause(&error) == Cause::Garbled || is_hidden(host, &path, &error) => continue,
            Err(error) => return Finding::Untold(host::unknown(format!("read {}", path.display()), &error)),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.lines().any(is_garbled) {
            return Finding::Untold(Unknown::new(Cause::Garbled, path.display().to_string()));
        }
        let found =
            text.lines().enumerate().find(|(_, line)| !line.trim_start().starts_with(['#', '/']) && speaks(line));
        if let Some((number, _)) = found {
            let at = format!("{}:{}: a rule that speaks of storage", path.display(), number + 1);
            finding = Finding::Untold(Unknown::new(Cause::Undecidable, &at));
            mechanisms.insert(at);
        }
    }
    finding
}

/// Returns whether a line of udev(7) may keep USB storage out or make it read-only.
fn speaks_of_storage(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["authorized", "udisks_ignore", "--setro", "attr{ro}", "usb-storage", "usb_storage"]
        .iter()
        .any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_driver_that_is_never_loaded_keeps_storage_out() {
        for (lines, expected) in [
            ("install usb-storage /bin/false", Some(true)),
            ("install usb_storage /bin/true # x", Some(true)),
            ("blacklist usb-storage", Some(false)),
            ("blacklist usb-storage\nblacklist uas", Some(true)),
            ("blacklist usb_storage\ninstall uas /bin/false", Some(true)),
            ("install usb-storage /sbin/modprobe --ignore-install usb-storage", None),
            ("install usb-storage /bin/false || /sbin/modprobe -i usb-storage", None),
            ("# install usb-storage /bin/false", Some(false)),
            ("options usb-storage quirks=1:2:u", Some(false)),
        ] {
            let mut modprobe = Modprobe::default();
            lines.lines().for_each(|line| modprobe.add(line, "f:1"));
            let found = match modprobe.finding(&mut BTreeSet::new()) {
                Finding::Blocks => Some(true),
                Finding::Silent => Some(false),
                Finding::Untold(_) => None,
            };
            assert_eq!(found, expected, "{lines}");
        }
    }

    #[test]
    fn a_command_line_keeps_both_drivers_out() {
        assert_eq!(blocking_word("quiet module_blacklist=a,usb-storage ro"), Some("module_blacklist=a,usb-storage"));
        assert_eq!(blocking_word("modprobe.blacklist=usb_storage"), None);
        assert_eq!(blocking_word("modprobe.blacklist=usb_storage,uas"), Some("modprobe.blacklist=usb_storage,uas"));
        assert_eq!(blocking_word("quiet"), None);
    }

    #[test]
    fn a_rule_of_usbguard_lets_storage_in_unless_it_names_other_kinds_alone() {
        for (line, expected) in [
            ("allow id 1d6b:0002 serial \"x\" with-interface 09:00:00", false),
            ("allow id 046d:c31c with-interface { 03:01:01 03:00:00 }", false),
            ("allow with-interface equals { 03:00:01 }", false),
            ("allow with-interface one-of { 03:00:01 03:01:01 }", true),
            ("allow with-interface equals { 08:*:* }", true),
            ("allow with-interface 08:06:50", true),
            ("allow with-interface *:*:*", true),
            ("allow with-interface none-of { 08:*:* }", true),
            ("allow id 1234:5678", true),
            ("allow", true),
            ("block with-interface 08:*:*", false),
            ("reject", false),
            ("# allow", false),
        ] {
            assert_eq!(may_let_storage_in(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "[a-z0-9 :*{}=,#/_-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let mut modprobe = Modprobe::default();
                modprobe.add(&text, "f:1");
                modprobe.finding(&mut BTreeSet::new());
                blocking_word(&text);
                may_let_storage_in(&text);
                speaks_of_storage(&text);
            }
        }
    }
}
