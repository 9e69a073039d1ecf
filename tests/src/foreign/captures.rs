//! Captured machines of which one file lies: a probe looks at such a machine, and must say something that the collector can take.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use muster_agent::{
    host::Recorded,
    probe::{self, Look, Probe, Settings},
};
use muster_proto::fact::{Fact, WatchState};

use super::{Parser, repository, write_anew};

/// Files of a fixture that are the test's and not the machine's.
const NOT_OF_THE_MACHINE: &[&str] = &["expected.json", "settings.json"];
/// What a capture says of all but the content of files.
const INDEX: &str = "index.json";

/// One captured machine.
pub(super) struct Machine {
    probe: &'static dyn Probe,
    /// The folder of its capture.
    folder: PathBuf,
    /// What it holds, by path within it, in order.
    pub(super) files: Vec<String>,
    /// Bytes of all that.
    pub(super) size_bytes: u64,
}

impl Machine {
    /// Returns its name, such as `debian-12`.
    pub(super) fn name(&self) -> String {
        self.folder.file_name().expect("a capture has a name").to_string_lossy().into_owned()
    }

    /// Returns the content of one of its files.
    pub(super) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.join(file)).expect("it is there")
    }

    /// Copies it into `to`, where its files may be changed.
    pub(super) fn copy(&self, to: &Path) {
        for file in files_in(&self.folder) {
            let target = to.join(&file);
            fs::create_dir_all(target.parent().expect("it is in a folder")).expect("the scratch folder can be written");
            fs::copy(self.folder.join(&file), target).expect("it can be copied");
        }
    }
}

/// Returns every captured machine that `probe` can look at.
pub(super) fn machines(probe: &'static dyn Probe) -> Vec<Machine> {
    let fixtures = repository().join("agent/fixtures").join(probe.name());
    let mut machines: Vec<Machine> = fs::read_dir(&fixtures)
        .expect("every probe has fixtures")
        .map(|machine| {
            let folder = machine.expect("a folder").path();
            let mut files = files_in(&folder);
            let size_bytes = files.iter().map(|file| fs::metadata(folder.join(file)).expect("it is there").len()).sum();
            files.retain(|file| !NOT_OF_THE_MACHINE.contains(&file.as_str()));
            Machine { probe, folder, files, size_bytes }
        })
        .collect();
    assert!(!machines.is_empty(), "{} has no capture", probe.name());
    machines.sort_by(|a, b| a.folder.cmp(&b.folder));
    machines
}

/// Returns a parser for each file of each captured machine of `probe`: it looks at the machine while that one file lies.
pub(super) fn parsers(probe: &'static dyn Probe, scratch: &Path) -> Vec<Parser> {
    let mut parsers = Vec::new();
    for machine in machines(probe) {
        let copy = scratch.join(probe.name()).join(machine.name());
        machine.copy(&copy);
        for file in &machine.files {
            let name = format!("probe/{}/{}/{file}", probe.name(), machine.name());
            parsers.push(lying(name, &machine, &copy, file, vec![machine.read(file)]));
        }
    }
    parsers
}

/// Returns a parser that looks at `machine`, whose copy is in `folder`, while its `file` says what the parser is given.
pub(super) fn lying(name: String, machine: &Machine, folder: &Path, file: &str, seeds: Vec<Vec<u8>>) -> Parser {
    let (probe, folder, path) = (machine.probe, folder.to_owned(), folder.join(file));
    let original = fs::read(&path).expect("it is there");
    let (index, settings) = (file == INDEX, settings_of(&folder));
    // Lines of a scan are a capture's own, and can say what no scan finds: the agent refuses that as it seals.
    let is_of_the_machine = !file.starts_with("scans");
    let recorded = Rc::new(Recorded::at(&folder).expect("a capture"));
    let parse = move |bytes: &[u8]| {
        write_anew(&path, bytes);
        if index {
            if let Ok(recorded) = Recorded::at(&folder) {
                look_at(probe, &recorded, &folder, &settings, is_of_the_machine);
            }
        } else {
            look_at(probe, &recorded, &folder, &settings, is_of_the_machine);
        }
        write_anew(&path, &original);
    };
    Parser { name, seeds, parse: Box::new(parse) }
}

fn settings_of(capture: &Path) -> Settings {
    match fs::read(capture.join("settings.json")) {
        Ok(json) => serde_json::from_slice(&json).expect("settings"),
        Err(_) => Settings::default(),
    }
}

fn look_at(probe: &dyn Probe, host: &Recorded, capture: &Path, settings: &Settings, is_of_the_machine: bool) {
    let memory = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(capture.join("memory")).into_iter().flatten() {
        let file = file.expect("an entry");
        fs::copy(file.path(), memory.path().join(file.file_name())).expect("it can be copied");
    }
    let now = host.captured().plus(Duration::from_secs(60));
    let look =
        Look { host, now, settings, memory: memory.path(), watch: WatchState::Live, run: 7, files: Default::default() };
    let facts = probe.look(&look);
    assert_eq!(
        facts.len(),
        probe::subjects(probe.id()).count(),
        "one fact for each subject, whatever the machine says"
    );
    for fact in facts {
        let taken = Fact::decode(&fact.encode());
        assert!(!is_of_the_machine || taken.as_ref() == Ok(&fact), "a probe says what the collector takes: {taken:?}");
    }
}

/// Returns what is in `folder` and below it, by path from there, in order.
fn files_in(folder: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it");
                files.push(name.to_str().expect("names of captures are text").to_owned());
            }
        }
    }
    files.sort();
    files
}
