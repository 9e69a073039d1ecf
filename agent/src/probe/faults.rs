//! No fault of the machine ever turns a reading into a different known value.
//!
//! Every look of every capture is taken once to learn what it asks. Then each of its accesses is spoiled in every way that an
//! access of its kind can go wrong, and the look is taken again: nothing panics, every reading is as before or unknown with
//! the fault's own cause, and what the look leaves in the probe's memory does not mislead the next one. Where a fault cannot
//! be told from a machine on which things are so, [`expected::rows`] says why.

mod expected;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use muster_proto::{
    fact::{Cause, Fact, FileIntegrity, PathText, Reading, WatchState},
    time::Timestamp,
};
use serde_json::Value;

use self::expected::{COMPANIONS, Expected};
use super::{Look, PROBES, Probe, Settings};
use crate::host::{
    Host, Recorded,
    faulty::{Access, Fault, Faulty, Kind, When},
};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const ESTALE: i32 = 116;

/// What a capture answers when it is asked what the machine was not.
const NOT_RECORDED: &str = "not in the capture";

/// Content up to so many bytes is cut at each of them.
const CUT_EVERYWHERE_BYTES: usize = 200;
/// Accesses that a failure names, at most.
const ACCESSES_SHOWN: usize = 8;
/// Places at which longer content is cut.
const CUTS: usize = 24;

/// A capture, as a look needs it.
pub(super) struct Case {
    probe: &'static dyn Probe,
    pub(super) name: String,
    pub(super) host: Recorded,
    settings: Settings,
    memory: PathBuf,
}

impl Case {
    pub(super) fn all() -> Vec<Self> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut cases = Vec::new();
        for probe in PROBES {
            for folder in fs::read_dir(fixtures.join(probe.name())).unwrap() {
                let folder = folder.unwrap().path();
                let settings = match fs::read(folder.join("settings.json")) {
                    Ok(json) => serde_json::from_slice(&json).unwrap(),
                    Err(_) => Settings::default(),
                };
                cases.push(Self {
                    probe: *probe,
                    name: format!("{}/{}", probe.name(), folder.file_name().unwrap().to_string_lossy()),
                    host: Recorded::at(&folder).unwrap(),
                    settings,
                    memory: folder.join("memory"),
                });
            }
        }
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    /// Returns a folder with what earlier looks left in the probe's memory.
    pub(super) fn memory(&self) -> tempfile::TempDir {
        copy_of(&self.memory)
    }

    /// Returns when the first look is; the others are each a minute later.
    pub(super) fn at(&self, minutes: u64) -> Timestamp {
        self.host.captured().plus(Duration::from_secs(60 * minutes))
    }

    pub(super) fn look(&self, host: &dyn Host, memory: &Path, now: Timestamp) -> Vec<Fact> {
        let (settings, watch) = (&self.settings, WatchState::Live);
        self.probe.look(&Look { host, now, settings, memory, watch, run: 7, files: Default::default() })
    }
}

/// Returns a new folder with the files of `folder`, which may be none.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).into_iter().flatten() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// What came of one fault.
#[derive(Debug)]
struct Broken {
    case: String,
    access: String,
    fault: Fault,
    when: &'static str,
    what: String,
}

/// What was tried, and what of it broke the rule.
#[derive(Default)]
struct Outcome {
    /// Number of looks with a fault, by probe and fault.
    looks: BTreeMap<(&'static str, String), u64>,
    broken: Vec<Broken>,
    /// Rows of [`expected`] that were met.
    met: BTreeSet<usize>,
}

/// Returns the faults that an access of `kind` can meet.
fn faults(kind: Kind) -> Vec<Fault> {
    use std::io::ErrorKind;
    let mut faults = vec![
        Fault::Errno(ENOENT),
        Fault::Errno(EACCES),
        Fault::Errno(EIO),
        Fault::Kind(ErrorKind::TimedOut),
        Fault::Kind(ErrorKind::FileTooLarge),
    ];
    match kind {
        Kind::Value | Kind::Content(None) => {}
        Kind::Scan => {
            faults.extend([Fault::Breaks(EIO), Fault::Breaks(ESTALE), Fault::Entry(EACCES), Fault::Entry(EIO)])
        }
        Kind::Content(Some(count)) => {
            // A killed tool is an error of no kind of its own.
            faults.extend([
                Fault::Kind(ErrorKind::Other),
                Fault::Breaks(EIO),
                Fault::Breaks(ESTALE),
                Fault::Endless,
                Fault::Inverted,
            ]);
            let step = if count <= CUT_EVERYWHERE_BYTES { 1 } else { count / CUTS };
            faults.extend((0..count).step_by(step).map(Fault::Cut));
        }
    }
    faults
}

/// Returns the causes that tell of `fault`; every one does that lies in what was read.
fn causes(fault: Fault) -> &'static [Cause] {
    use std::io::ErrorKind;
    const CONTENT: &[Cause] = &[Cause::Garbled, Cause::Absent, Cause::Undecidable, Cause::Unsupported, Cause::Stale];
    match fault {
        Fault::Errno(ENOENT) => &[Cause::Absent],
        Fault::Errno(EACCES) | Fault::Entry(EACCES) => &[Cause::Forbidden],
        Fault::Errno(_) | Fault::Breaks(_) | Fault::Entry(_) => &[Cause::Failed],
        Fault::Kind(ErrorKind::TimedOut) => &[Cause::TimedOut],
        Fault::Kind(ErrorKind::FileTooLarge) => &[Cause::Limit],
        Fault::Kind(_) => &[Cause::Failed],
        Fault::Cut(_) | Fault::Inverted => CONTENT,
        Fault::Endless => &[Cause::Limit, Cause::TimedOut],
    }
}

/// Returns what a row of [`expected`] calls `fault`.
fn class(fault: Fault) -> &'static str {
    match fault {
        Fault::Errno(ENOENT) => "absent",
        Fault::Errno(_) | Fault::Kind(_) | Fault::Breaks(_) | Fault::Entry(_) | Fault::Endless => "error",
        Fault::Cut(_) | Fault::Inverted => "content",
    }
}

#[test]
fn no_fault_turns_a_reading_into_a_different_known_value() {
    let outcome = Mutex::new(Outcome::default());
    let cases = Mutex::new(Case::all());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop() else { return };
                    walk(&case, &outcome);
                }
            });
        }
    });
    let outcome = outcome.into_inner().unwrap();
    report(&outcome);
}

/// Prints how many looks were taken, and fails when one broke the rule or a row of the table is of no use.
fn report(outcome: &Outcome) {
    let mut all = 0;
    for ((probe, fault), count) in &outcome.looks {
        eprintln!("{probe:16} {fault:24} {count:6} looks");
        all += count;
    }
    eprintln!("{all} looks with a fault, {} broke the rule", outcome.broken.len());
    let mut shown: BTreeMap<String, (usize, BTreeSet<&str>, &Broken)> = BTreeMap::new();
    for broken in &outcome.broken {
        let probe = broken.case.split('/').next().unwrap_or_default();
        let (after, what) = match broken.what.strip_prefix("after: ") {
            Some(what) => ("after: ", what),
            None => ("", broken.what.as_str()),
        };
        let reading = what.split(": ").next().unwrap_or_default();
        let class = class(broken.fault);
        let row = format!(r#"probe: "{probe}", class: "{class}", reading: "{after}{reading}""#);
        let entry = shown.entry(row).or_insert((0, BTreeSet::new(), broken));
        entry.0 += 1;
        entry.1.insert(&broken.access);
    }
    let lines: Vec<String> = shown
        .iter()
        .map(|(row, (count, accesses, first))| {
            let more = accesses.iter().take(ACCESSES_SHOWN).copied().collect::<Vec<_>>().join(", ");
            let Broken { case, access, fault, when, what } = first;
            format!(
                "{count} x {row}\n  {case}, {access}, {fault:?} {when}: {what}\n  of {} accesses: {more}",
                accesses.len()
            )
        })
        .collect();
    assert!(lines.is_empty(), "a fault is taken for another machine:\n{}", lines.join("\n"));
    let unmet: Vec<&Expected> =
        expected::rows().enumerate().filter(|(row, _)| !outcome.met.contains(row)).map(|(_, row)| row).collect();
    assert!(unmet.is_empty(), "rows that nothing needs: {unmet:#?}");
}

/// What a look without a fault asks and gives.
struct Clean {
    accesses: Vec<Access>,
    first: Vec<Fact>,
    /// Of a second look, where every file was touched and nothing else changed, so that nothing is taken from what was kept.
    second: Vec<Fact>,
    third: Vec<Fact>,
    /// What the first look left.
    memory: tempfile::TempDir,
}

fn walk(case: &Case, outcome: &Mutex<Outcome>) {
    let memory = case.memory();
    let first = case.look(&case.host, memory.path(), case.at(0));
    let after_first = copy_of(memory.path());
    let watching = Faulty::watching(&case.host);
    let second = case.look(&watching, memory.path(), case.at(1));
    let third = case.look(&case.host, memory.path(), case.at(2));
    let clean = Clean { accesses: watching.accesses(), first, second, third, memory: after_first };
    let mut seen = BTreeMap::<&str, Vec<usize>>::new();
    for (nth, access) in clean.accesses.iter().enumerate() {
        seen.entry(&access.key).or_default().push(nth);
    }
    for places in seen.values() {
        let access = &clean.accesses[places[0]];
        for fault in faults(access.kind) {
            try_one(case, access, fault, &When::Of(access.key.clone()), &clean, outcome);
        }
        // What is asked twice may go wrong between the two.
        if places.len() > 1 {
            for nth in [places[0], places[places.len() - 1]] {
                for fault in [Fault::Errno(ENOENT), Fault::Errno(EIO)] {
                    try_one(case, access, fault, &When::Nth(nth), &clean, outcome);
                }
            }
        }
    }
    let timed_out = Fault::Kind(std::io::ErrorKind::TimedOut);
    for (nth, access) in clean.accesses.iter().enumerate() {
        try_one(case, access, timed_out, &When::From(nth), &clean, outcome);
    }
}

/// Takes three looks: one with the fault at a machine that was never looked at, one with it where an earlier look went well,
/// and one after the fault.
fn try_one(case: &Case, access: &Access, fault: Fault, when: &When, clean: &Clean, outcome: &Mutex<Outcome>) {
    let mut findings = Findings { case, access, fault, whats: Vec::new(), met: BTreeSet::new() };
    // Content is cut in many places, and what is kept of it is the same.
    if class(fault) != "content" {
        let memory = case.memory();
        let host = Faulty::new(&case.host, fault, when.clone());
        if let Some(found) = findings.caught(|| case.look(&host, memory.path(), case.at(0))) {
            findings.check(&found, &clean.first, "", causes(fault));
        }
    }
    let memory = copy_of(clean.memory.path());
    let host = Faulty::new(&case.host, fault, when.clone());
    if let Some(found) = findings.caught(|| case.look(&host, memory.path(), case.at(1))) {
        findings.check(&found, &clean.second, "", causes(fault));
        if class(fault) != "content" {
            findings.check(&case.look(&case.host, memory.path(), case.at(2)), &clean.third, "after: ", &[]);
        }
    }
    let name = match when {
        When::Never | When::Of(_) => "",
        When::Nth(_) => "once",
        When::From(_) => "from then on",
    };
    let kind = match fault {
        Fault::Cut(_) => "Cut".to_owned(),
        fault => format!("{fault:?}"),
    };
    let Findings { whats, met, .. } = findings;
    let mut outcome = outcome.lock().unwrap();
    *outcome.looks.entry((case.probe.name(), format!("{kind} {name}"))).or_default() += 1;
    outcome.met.extend(met);
    let broken = whats.into_iter().map(|what| Broken {
        case: case.name.clone(),
        access: access.key.clone(),
        fault,
        when: name,
        what,
    });
    outcome.broken.extend(broken);
}

/// What of the looks with one fault broke the rule.
struct Findings<'a> {
    case: &'a Case,
    access: &'a Access,
    fault: Fault,
    whats: Vec<String>,
    met: BTreeSet<usize>,
}

impl Findings<'_> {
    fn caught(&mut self, look: impl FnOnce() -> Vec<Fact>) -> Option<Vec<Fact>> {
        match catch_unwind(AssertUnwindSafe(look)) {
            Ok(facts) => Some(facts),
            Err(panic) => {
                self.whats.push(format!("panic: {:?}", panic.downcast_ref::<String>()));
                None
            }
        }
    }

    fn check(&mut self, found: &[Fact], expected: &[Fact], prefix: &str, causes: &[Cause]) {
        if found.len() != expected.len() {
            self.whats.push(format!("{prefix}one fact for each subject, whatever fails"));
        }
        for (found, expected) in found.iter().zip(expected) {
            let subject = found.subject().as_str();
            if Fact::decode(&found.encode()).as_ref() != Ok(found) {
                self.whats.push(format!("{prefix}{subject} cannot be sent"));
            }
            if found == expected {
                continue;
            }
            if let Some(what) = hides_a_change(expected, found) {
                self.whats.push(format!("{prefix}{subject}: {what}"));
            }
            let state = |fact: &Fact| serde_json::to_value(fact).unwrap()["state"].take();
            let mut differences = Vec::new();
            compare(subject, &state(expected), &state(found), causes, &mut differences);
            for Difference { path, text } in differences {
                let (probe, access) = (self.case.probe.name(), &self.access.key);
                let reading = format!("{prefix}{path}");
                let row = expected::rows().position(|row| row.covers(probe, access, class(self.fault), &reading));
                match row {
                    Some(row) => drop(self.met.insert(row)),
                    None => self.whats.push(format!("{reading}: {text}")),
                }
            }
        }
    }
}

/// Returns how `found` tells of fewer changed files than `clean`, where it could read as much: what no database explains is shown,
/// and what is shown is not explained by a fault.
fn hides_a_change(clean: &Fact, found: &Fact) -> Option<String> {
    let (Fact::FileIntegrity(Reading::Known(clean)), Fact::FileIntegrity(Reading::Known(found))) = (clean, found)
    else {
        return None;
    };
    let counts = |state: &FileIntegrity| (state.changes_total, state.changes_total + state.explained_total);
    let (before, now) = (counts(clean), counts(found));
    let is_fewer = now.0 < before.0 || now.1 < before.1;
    let was_so = |path: &PathText| clean.unreadable.iter().any(|before| before.path == *path);
    let reads_as_much = found.unreadable.iter().all(|now| was_so(&now.path));
    (reads_as_much && is_fewer).then(|| format!("changes not explained, and all: {before:?} became {now:?}"))
}

/// A reading that is neither as before nor unknown with the fault's cause.
struct Difference {
    /// Where it is, such as `disk_encryption.volumes[].encrypted`.
    path: String,
    text: String,
}

fn compare(path: &str, clean: &Value, found: &Value, causes: &[Cause], differences: &mut Vec<Difference>) {
    let is_untold = found["unknown"]["detail"].as_str().is_some_and(|detail| detail.contains(NOT_RECORDED));
    if clean == found || is_untold || cause(found).is_some_and(|cause| causes.contains(&cause)) {
        return;
    }
    let mut differ = || {
        let short = |value: &Value| value.to_string().chars().take(160).collect::<String>();
        differences
            .push(Difference { path: path.to_owned(), text: format!("{} became {}", short(clean), short(found)) });
    };
    match (clean, found) {
        // Cannot tell stays cannot tell.
        (clean, found) if cause(clean).is_some() && cause(found).is_some() => {}
        (Value::Object(before), Value::Object(after)) if cause(clean).is_none() && cause(found).is_none() => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let companions = COMPANIONS.iter().filter(|(list, _)| *list == format!("{path}.{name}"));
                if companions.into_iter().any(|(_, reading)| tells(&found[*reading], causes)) {
                    continue;
                }
                let of = |values: &serde_json::Map<String, Value>| values.get(name).cloned().unwrap_or(Value::Null);
                compare(&format!("{path}.{name}"), &of(before), &of(after), causes, differences);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (before, after) in before.iter().zip(after) {
                compare(&format!("{path}[]"), before, after, causes, differences);
            }
        }
        _ => differ(),
    }
}

/// Returns the cause of a reading that is unknown.
fn cause(reading: &Value) -> Option<Cause> {
    let unknown = reading.as_object().filter(|object| object.len() == 1)?.get("unknown")?;
    serde_json::from_value(unknown["cause"].clone()).ok()
}

/// Returns whether a reading, or one of a list of what could not be read, is unknown with one of `causes`.
fn tells(value: &Value, causes: &[Cause]) -> bool {
    let is_one = |value: &Value| {
        serde_json::from_value(value["unknown"]["cause"].clone()).is_ok_and(|cause: Cause| causes.contains(&cause))
    };
    is_one(value) || value.as_array().is_some_and(|items| items.iter().any(is_one))
}
