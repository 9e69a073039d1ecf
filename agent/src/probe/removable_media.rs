//! Storage that is plugged in by USB: whether the kernel may load a driver for it, and whether devices are let in at all.
//!
//! Three things keep it out for certain: a kernel that has no driver or loads none, a modprobe.d(5) that never loads it, and USBGuard
//! (or a kernel that takes no new device) whose rules let no storage in. Rules of udev and polkit are programs in which everything is
//! possible: where some speak of storage, a host that nothing else closes is unknown rather than open.

mod modprobe;
mod udev;
mod usbguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, Fact, Reading, RemovableMedia, RemovablePolicy, Text, Unknown},
    report,
};

use self::modprobe::Settings;
use super::{Look, Probe};
use crate::host::{self, EntryKind, Host, SMALL_FILE_BYTES};

/// Folders of modprobe.d(5): of two files of one name, the one in the folder named first is read.
const MODPROBE: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];
/// The driver as modules are named, and the one for newer devices, which needs it.
const DRIVER: &str = "usb_storage";
const UAS: &str = "uas";
/// What the kernel runs to load a module.
const LOADER: &str = "/sbin/modprobe";
/// What tells a kernel to have no USB at all: of one that has it as a module, and of one that has it inside.
const NO_USB: [&str; 2] = ["/sys/module/usbcore/parameters/nousb", "/sys/module/kernel/parameters/nousb"];
/// Where modules are: the last one is that of NixOS.
const MODULES: [&str; 3] = ["/lib/modules", "/usr/lib/modules", "/run/booted-system/kernel-modules/lib/modules"];
/// Whether the kernel loads no further module until it is started anew: Documentation/admin-guide/sysctl/kernel.rst.
const MODULES_DISABLED: &str = "/proc/sys/kernel/modules_disabled";
const BUSES: &str = "/sys/bus/usb/devices";
const DISKS: &str = "/sys/block";
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
    let udev = rules(host, UDEV_RULES, udev::lines);
    let polkit = rules(host, POLKIT_RULES, polkit_lines);
    let findings = [
        no_usb(host, &mut mechanisms),
        driver(host, &loaded, &udev, &mut mechanisms),
        authorization(host, &udev, &mut mechanisms),
        spoken(&udev, udev::speaks_of_storage, &mut mechanisms),
        spoken(&polkit, |line| line.contains("org.freedesktop.udisks2"), &mut mechanisms),
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

/// Whether the kernel was told to have no USB. Where that cannot be read, the others decide.
fn no_usb(host: &dyn Host, mechanisms: &mut BTreeSet<String>) -> Finding {
    let is_told =
        |path: &&str| host.read(Path::new(path), SMALL_FILE_BYTES).is_ok_and(|text| text.trim_ascii() == b"Y");
    let Some(path) = NO_USB.into_iter().find(|path| is_told(path)) else { return Finding::Silent };
    mechanisms.insert(format!("{path}: Y"));
    Finding::Blocks
}

/// Whether the kernel can get the driver.
fn driver(host: &dyn Host, loaded: &Reading<bool>, udev: &Rules, mechanisms: &mut BTreeSet<String>) -> Finding {
    match loaded {
        // What keeps it from being loaded comes too late.
        Reading::Known(true) => return Finding::Silent,
        Reading::Known(false) => {}
        Reading::Unknown { unknown } => return Finding::Untold(unknown.clone()),
    }
    if host.read(Path::new(MODULES_DISABLED), SMALL_FILE_BYTES).is_ok_and(|text| text.trim_ascii() == b"1") {
        mechanisms.insert(format!("{MODULES_DISABLED}: 1"));
        return Finding::Blocks;
    }
    let modules = match modules(host) {
        Ok(Some(modules)) => modules,
        Ok(None) => {
            mechanisms.insert("the kernel has no driver of USB storage".to_owned());
            return Finding::Blocks;
        }
        Err(unknown) => return Finding::Untold(unknown),
    };
    let cmdline = host.read(Path::new("/proc/cmdline"), SMALL_FILE_BYTES);
    let words = cmdline.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    if let Some(word) = modprobe::refused_by_kernel(&words) {
        mechanisms.insert(format!("/proc/cmdline: {word}"));
        return Finding::Blocks;
    }
    let finding = match settings(host) {
        Ok(mut settings) => {
            settings.add_command_line(&words);
            unless_disobeyed(host, unless(settings.finding(&modules, mechanisms), udev, udev::loads_driver))
        }
        Err(unknown) => Finding::Untold(unknown),
    };
    match (finding, cmdline) {
        (Finding::Silent, Err(error)) => Finding::Untold(host::unknown("read /proc/cmdline", &error)),
        (finding, _) => finding,
    }
}

/// Returns the finding unless it is that modprobe.d(5) keeps the driver out, and the kernel runs a program that does not obey all of that:
/// busybox has no `install`.
fn unless_disobeyed(host: &dyn Host, finding: Finding) -> Finding {
    if finding != Finding::Blocks {
        return finding;
    }
    match host.read_link(Path::new(LOADER)) {
        Ok(target) if target.file_name().is_some_and(|name| name == "kmod") => finding,
        Ok(target) => {
            let detail = format!("{LOADER} is {}, not kmod", target.display());
            Finding::Untold(Unknown::new(Cause::Undecidable, detail))
        }
        // udev(7) has libkmod inside.
        Err(error) if host::cause(&error) == Cause::Absent => finding,
        Err(error) => Finding::Untold(host::unknown(format!("read link {LOADER}"), &error)),
    }
}

/// Returns the modules of the running kernel for USB storage that modprobe(8) would find; `None` where the driver is not among them.
fn modules(host: &dyn Host) -> Result<Option<BTreeSet<String>>, Unknown> {
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
        return Ok(None);
    }
    let release = host.machine().map_err(|error| host::unknown("uname", &error))?.release;
    for root in MODULES {
        let root = Path::new(root).join(&release);
        if look(&root)?.is_none() {
            continue;
        }
        let names = look(&root.join("kernel/drivers/usb/storage"))?.unwrap_or_default();
        let module = |name: &OsString| Some(modprobe::underscored(name.to_str()?.split_once(".ko")?.0));
        let modules: BTreeSet<_> = names.iter().filter_map(module).collect();
        if modules.contains(DRIVER) {
            return Ok(Some(modules));
        }
        // Modules of another place, which a distribution or an administrator adds.
        let updates = ["updates", "extra", "weak-updates"].iter().map(|name| look(&root.join(name)));
        if updates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().flatten().next().is_some() {
            return Err(Unknown::new(Cause::Undecidable, format!("{} has modules from elsewhere", root.display())));
        }
        return Ok(None);
    }
    Err(Unknown::new(Cause::Absent, format!("/lib/modules has nothing of the running kernel {release}")))
}

fn settings(host: &dyn Host) -> Result<Settings, Unknown> {
    let mut files = BTreeMap::new();
    for folder in MODPROBE {
        match host.list(Path::new(folder)) {
            Ok(names) => {
                let is_read = |name: &OsString| {
                    let name = name.to_string_lossy();
                    (name.ends_with(".conf") || name.ends_with(".alias")) && !name.starts_with('.')
                };
                for name in names.into_iter().filter(is_read).take(FILES) {
                    let path = Path::new(folder).join(&name);
                    files.entry(name).or_insert(path);
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        }
    }
    let mut settings = Settings::default();
    for path in files.values() {
        let bytes = match host.read(path, SMALL_FILE_BYTES) {
            Ok(bytes) => bytes,
            // A link to nothing, which hides a file of that name.
            Err(error) if is_hidden(host, path, &error) => continue,
            // So does a link to `/dev/null`.
            Err(error) if host::cause(&error) == Cause::Garbled => continue,
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        };
        for (number, line) in modprobe::lines(&String::from_utf8_lossy(&bytes)) {
            let at = format!("{}:{number}", path.display());
            if is_garbled(&line) {
                return Err(Unknown::new(Cause::Garbled, at));
            }
            // Up to version 32 of kmod.
            if path.extension().is_some_and(|extension| extension == "alias") {
                settings.add_of_some(&line, &at);
            } else {
                settings.add(&line, &at);
            }
        }
    }
    Ok(settings)
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
fn authorization(host: &dyn Host, udev: &Rules, mechanisms: &mut BTreeSet<String>) -> Finding {
    let names = match host.list(Path::new(BUSES)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Finding::Silent,
        Err(error) => return Finding::Untold(host::unknown(format!("list {BUSES}"), &error)),
    };
    let mut buses = 0;
    let mut taken = "no bus takes new devices by itself";
    for name in names.iter().filter(|name| name.to_string_lossy().starts_with("usb")) {
        let path = Path::new(BUSES).join(name).join("authorized_default");
        match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => match bytes.trim_ascii() {
                b"0" => buses += 1,
                // Those inside the machine, until something tells otherwise.
                b"2" => {
                    buses += 1;
                    taken = "no bus takes new devices from outside by itself";
                }
                // 1 lets in all, and -1 (of wireless devices) is a kernel's own choice.
                b"1" | b"-1" => return Finding::Silent,
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
    mechanisms.insert(format!("{BUSES}: {taken}"));
    match usbguard::guard(host) {
        Ok(None) => Finding::Untold(Unknown::new(Cause::Undecidable, "who lets devices in is not known")),
        Ok(Some(guard)) => {
            let finding = guard.finding();
            if finding == Finding::Blocks {
                mechanisms.insert(format!("{}: no rule lets storage in", usbguard::FOLDER));
            }
            unless_there(host, unless(finding, udev, udev::authorizes))
        }
        Err(unknown) => Finding::Untold(unknown),
    }
}

/// Returns the finding unless it is that storage is kept out, and some is there.
fn unless_there(host: &dyn Host, finding: Finding) -> Finding {
    if finding != Finding::Blocks {
        return finding;
    }
    let names = match host.list(Path::new(DISKS)) {
        Ok(names) => names,
        Err(error) => return Finding::Untold(host::unknown(format!("list {DISKS}"), &error)),
    };
    for name in names {
        let path = Path::new(DISKS).join(name);
        match host.read_link(&path) {
            Ok(place) if is_usb_storage(&place) => {
                let detail = format!("{} is there by USB, and came past what keeps it out", path.display());
                return Finding::Untold(Unknown::new(Cause::Undecidable, detail));
            }
            Ok(_) => {}
            Err(error) => return Finding::Untold(host::unknown(format!("read link {}", path.display()), &error)),
        }
    }
    finding
}

/// Returns whether a device of this place below `/sys/devices` is a disk of a SCSI host on USB, as the driver makes them.
fn is_usb_storage(place: &Path) -> bool {
    let has = |kind: &str| {
        let is_kind =
            |name: &str| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        place.iter().any(|name| name.to_str().is_some_and(is_kind))
    };
    has("usb") && has("host")
}

/// Files of rules, each with its lines and their numbers.
type Rules = Result<Vec<(PathBuf, Vec<(usize, String)>)>, Unknown>;

fn rules(host: &dyn Host, folder: &str, lines: fn(&str) -> Vec<(usize, String)>) -> Rules {
    let names = match host.list(Path::new(folder)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(Vec::new()),
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    };
    let mut rules = Vec::new();
    for name in names.iter().filter(|name| name.to_string_lossy().ends_with(".rules")).take(FILES) {
        let path = Path::new(folder).join(name);
        let bytes = match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => bytes,
            // A link to nothing or to `/dev/null`, which hides a file of that name.
            Err(error) if host::cause(&error) == Cause::Garbled || is_hidden(host, &path, &error) => continue,
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        if text.lines().any(is_garbled) {
            return Err(Unknown::new(Cause::Garbled, path.display().to_string()));
        }
        rules.push((path, lines(&text)));
    }
    Ok(rules)
}

fn polkit_lines(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(['#', '/']));
    lines.map(|(number, line)| (number + 1, line.to_owned())).collect()
}

/// Notes the first line of each file that speaks of storage.
fn spoken(rules: &Rules, speaks: fn(&str) -> bool, mechanisms: &mut BTreeSet<String>) -> Finding {
    let rules = match rules {
        Ok(rules) => rules,
        Err(unknown) => return Finding::Untold(unknown.clone()),
    };
    let mut finding = Finding::Silent;
    for (path, lines) in rules {
        if let Some((number, _)) = lines.iter().find(|(_, line)| speaks(line)) {
            let at = format!("{}:{number}: a rule that speaks of storage", path.display());
            finding = Finding::Untold(Unknown::new(Cause::Undecidable, &at));
            mechanisms.insert(at);
        }
    }
    finding
}

/// Returns the finding unless it is that storage is kept out, and a rule may let it in all the same.
fn unless(finding: Finding, rules: &Rules, lets_in: fn(&str) -> bool) -> Finding {
    if finding != Finding::Blocks {
        return finding;
    }
    let rules = match rules {
        Ok(rules) => rules,
        Err(unknown) => return Finding::Untold(unknown.clone()),
    };
    let mut lines = rules.iter().flat_map(|(path, lines)| lines.iter().map(move |(number, line)| (path, number, line)));
    match lines.find(|(_, _, line)| lets_in(line)) {
        Some((path, number, _)) => {
            let detail = format!("{}:{number}: a rule that may let storage in", path.display());
            Finding::Untold(Unknown::new(Cause::Undecidable, detail))
        }
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Recorded;

    /// Returns what a kernel comes to that has modules for USB storage and has loaded none, with these files. What begins with an
    /// arrow is a link.
    fn policy(files: &[(&str, &str)]) -> Reading<RemovablePolicy> {
        let storage = "/lib/modules/6/kernel/drivers/usb/storage";
        let modules = ["uas.ko.xz", "ums-realtek.ko.xz", "usb-storage.ko.xz"].map(|name| format!("{storage}/{name}"));
        let modules: Vec<_> = modules.iter().map(|path| (path.as_str(), "")).collect();
        policy_of(&[files, &modules].concat())
    }

    /// Returns the same of a kernel of which nothing else is known.
    fn policy_of(files: &[(&str, &str)]) -> Reading<RemovablePolicy> {
        let folder = tempfile::tempdir().unwrap();
        let mut lists = BTreeMap::<_, BTreeSet<_>>::new();
        lists.insert(DISKS, BTreeSet::new());
        let mut links = BTreeMap::from([(LOADER, "../bin/kmod")]);
        let files = [("/proc/cmdline", "ro\n"), ("/etc/modprobe.d/a.conf", "\n")].iter().chain(files);
        for (path, content) in files {
            for path in Path::new(path).ancestors() {
                if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
                    lists.entry(folder.to_str().unwrap()).or_default().insert(name.to_str().unwrap());
                }
            }
            if let Some(target) = content.strip_prefix("-> ") {
                links.insert(path, target);
                continue;
            }
            let path = folder.path().join(format!("files{path}"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let mut absent = vec!["metadata /sys/module/usb_storage".to_owned()];
        if !lists.contains_key("/etc/usbguard") {
            absent.push("read /etc/usbguard/usbguard-daemon.conf".to_owned());
        }
        let below = ["", "/updates", "/extra", "/weak-updates"];
        let modules = MODULES.map(|folder| below.map(|below| format!("{folder}/6{below}"))).concat();
        let folders = [UDEV_RULES, POLKIT_RULES, BUSES, "/etc/usbguard/rules.d"].into_iter().chain(MODPROBE);
        let folders = folders.chain(modules.iter().map(String::as_str));
        let folders = folders.filter(|folder| !lists.contains_key(folder)).map(|folder| format!("list {folder}"));
        let errors: BTreeMap<_, _> =
            absent.into_iter().chain(folders).map(|asked| (asked, serde_json::json!({"errno": 2}))).collect();
        let index = serde_json::json!({
            "version": 1, "captured": "2026-11-24T12:00:00Z", "lists": lists, "links": links, "errors": errors,
            "machine": {"ok": {"hostname": "h", "release": "6", "machine": "x", "processors": 1, "memory_bytes": 0}},
            "metadata": {"/proc/modules": {"kind": "file", "size_bytes": 0, "modified": null, "mode": 0, "uid": 0,
                "gid": 0, "device": [0, 5], "inode": 1}},
        });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        removable_media(&Recorded::at(folder.path()).unwrap()).policy
    }

    #[test]
    fn a_kernel_without_usb_and_one_that_loads_no_module_keep_storage_out() {
        use RemovablePolicy::{Allow, Block};
        let conf = "/etc/modprobe.d/a.conf";
        for (file, content, expected) in [
            ("/proc/cmdline", "ro quiet\n", Some(Allow)),
            (NO_USB[0], "N\n", Some(Allow)),
            (NO_USB[0], "Y\n", Some(Block)),
            (NO_USB[1], "Y\n", Some(Block)),
            (MODULES_DISABLED, "0\n", Some(Allow)),
            (MODULES_DISABLED, "1\n", Some(Block)),
            (conf, "install usb-storage /bin/false\n", Some(Block)),
            (conf, "blacklist usb-storage\nblacklist uas\n", None),
            (conf, "blacklist usb-storage\nblacklist uas\nblacklist ums-realtek\n", Some(Block)),
            ("/proc/cmdline", "modprobe.blacklist=usb-storage,uas,ums-realtek\n", Some(Block)),
            ("/proc/cmdline", "module_blacklist=usb_storage\n", Some(Block)),
            ("/etc/modprobe.d/b.alias", "blacklist usb-storage\nblacklist uas\nblacklist ums-realtek\n", Some(Allow)),
            ("/etc/modprobe.d/b.alias", "install usb-storage /bin/false\n", None),
            // No file whose name begins with a dot is read.
            ("/etc/modprobe.d/.b.conf", "install usb-storage /bin/false\n", Some(Allow)),
        ] {
            assert_eq!(policy(&[(file, content)]).known().copied(), expected, "{file} {content}");
        }
    }

    #[test]
    fn usbguard_reads_every_file_in_the_folder_of_its_rules() {
        use RemovablePolicy::Block;
        let bus = ("/sys/bus/usb/devices/usb1/authorized_default", "0\n");
        for (config, file, expected) in [
            ("", "/etc/usbguard/rules.d/10-site.conf", None),
            ("", "/etc/usbguard/rules.d/10-site", None),
            ("", "/etc/usbguard/rules.d/.x~", None),
            ("", "/etc/usbguard/site/10", Some(Block)),
            ("RuleFolder = /etc/usbguard/site\n", "/etc/usbguard/site/10", None),
            ("RuleFile = /etc/usbguard/site/10\n", "/etc/usbguard/site/10", None),
        ] {
            let files = [
                bus,
                ("/etc/usbguard/usbguard-daemon.conf", config),
                ("/etc/usbguard/rules.conf", ""),
                (file, "allow\n"),
            ];
            assert_eq!(policy(&files).known().copied(), expected, "{config} {file}");
        }
    }

    #[test]
    fn a_disk_that_came_by_usb_is_not_kept_out() {
        use RemovablePolicy::Block;
        let port = "../devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0";
        for (place, expected) in [
            ("../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda".to_owned(), Some(Block)),
            ("../devices/virtual/block/loop0".to_owned(), Some(Block)),
            // A card in a reader that another driver reads.
            (format!("{port}/rtsx_usb_sdmmc.1.auto/mmc_host/mmc0/mmc0:1/block/mmcblk0"), Some(Block)),
            (format!("{port}/host3/target3:0:0/3:0:0:0/block/sda"), None),
        ] {
            let files = [
                ("/sys/bus/usb/devices/usb1/authorized_default", "0"),
                ("/etc/usbguard/usbguard-daemon.conf", ""),
                ("/etc/usbguard/rules.conf", ""),
                ("/sys/block/disk", &format!("-> {place}")),
            ];
            assert_eq!(policy(&files).known().copied(), expected, "{place}");
        }
    }

    #[test]
    fn what_modprobe_is_told_counts_where_kmod_is_told() {
        use RemovablePolicy::Block;
        for (loader, line, expected) in [
            ("kmod", "install usb-storage /bin/false", Some(Block)),
            ("/usr/bin/kmod", "install usb-storage /bin/false", Some(Block)),
            ("/bin/busybox", "install usb-storage /bin/false", None),
            ("/bin/busybox", "blacklist usb-storage\nblacklist uas\nblacklist ums-realtek\n", None),
        ] {
            let files = [(LOADER, &*format!("-> {loader}")), ("/etc/modprobe.d/b.conf", line)];
            assert_eq!(policy(&files).known().copied(), expected, "{loader} {line}");
        }
        let files = [(LOADER, "-> /bin/busybox"), ("/proc/cmdline", "module_blacklist=usb_storage")];
        assert_eq!(policy(&files).known(), Some(&Block));
    }

    #[test]
    fn modules_are_found_where_a_distribution_has_them() {
        use RemovablePolicy::{Allow, Block};
        for (folder, name, expected) in MODULES
            .into_iter()
            .flat_map(|folder| [(folder, "usb-storage.ko", Some(Allow)), (folder, "x.ko", Some(Block))])
            .chain([("/srv", "usb-storage.ko", None)])
        {
            let module = format!("{folder}/6/kernel/drivers/usb/storage/{name}");
            assert_eq!(policy_of(&[(&module, "")]).known().copied(), expected, "{module}");
        }
    }

    #[test]
    fn buses_that_take_what_is_inside_the_machine_leave_the_rest_to_usbguard() {
        use RemovablePolicy::{Allow, Block};
        for (default, rule, expected) in [
            ("0", "", Some(Block)),
            ("2", "", Some(Block)),
            ("2", "allow", None),
            ("1", "", Some(Allow)),
            ("-1", "", Some(Allow)),
            ("", "", None),
        ] {
            let files = [
                ("/sys/bus/usb/devices/usb1/authorized_default", default),
                ("/etc/usbguard/usbguard-daemon.conf", ""),
                ("/etc/usbguard/rules.conf", rule),
            ];
            assert_eq!(policy(&files).known().copied(), expected, "{default} {rule}");
        }
        assert_eq!(policy(&[("/sys/bus/usb/devices/usb1/authorized_default", "2")]).known(), None);
    }

    #[test]
    fn a_rule_of_udev_may_let_in_what_is_kept_out_by_what_it_goes_past() {
        use RemovablePolicy::Block;
        let install = [("/etc/modprobe.d/b.conf", "install usb-storage /bin/false\n")];
        let guard = [
            ("/sys/bus/usb/devices/usb1/authorized_default", "0\n"),
            ("/etc/usbguard/usbguard-daemon.conf", "ImplicitPolicyTarget=block\n"),
            ("/etc/usbguard/rules.conf", ""),
        ];
        let authorizes = "# x\nSUBSYSTEM==\"usb\", \\\n ATTR{authorized}=\"1\"\n";
        let loads = "RUN+=\"/sbin/modprobe -i usb-storage\"\n";
        for (kept_out, rule, expected) in [
            (&install[..], authorizes, Some(Block)),
            (&install, loads, None),
            (&guard, authorizes, None),
            (&guard, loads, Some(Block)),
            (&guard, "ATTR{authorized}=\"0\"\n", Some(Block)),
            (&[install[0], guard[0], guard[1], guard[2]], loads, Some(Block)),
            (&[(MODULES_DISABLED, "1\n")], loads, Some(Block)),
        ] {
            let files = [kept_out, &[("/etc/udev/rules.d/50-usb.rules", rule)]].concat();
            assert_eq!(policy(&files).known().copied(), expected, "{files:?}");
        }
    }
}
