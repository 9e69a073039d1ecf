//! Trials: an operator's file of controls, or the built-in controls, with what each control gives on its fixtures.
//!
//! It is the check that the collector makes when it loads the file, told whole: not the first thing that is wrong, but each, with
//! what to do. A file that a trial calls sound is one that the collector takes; a test compares the two. Of mistakes, which leave
//! what is judged sound, the collector warns where a trial calls them wrong.

use std::collections::BTreeMap;

use muster_proto::id::ControlId;

use super::{
    Catalogue, Control, Error, Verdict,
    catalogue::{self, Beside, Definition, Overlay},
    expression, field, fixture,
    fixture::Fixture,
    framework, mistake,
    mistake::Mistake,
    sample,
    statement::Statement,
};

/// A file of controls that shows what one may hold.
pub const EXAMPLE: &str = include_str!("example.toml");
/// Names that an advice lists, at most.
const NAMED: usize = 24;

/// What was tried.
#[derive(Debug)]
pub struct Trials {
    /// Version of the catalogue that the file would make; `None` while something is wrong.
    pub version: Option<String>,
    /// What is wrong with the file as a whole.
    pub faults: Vec<Fault>,
    /// Controls: for a file, those that it defines, changes or has fixtures for.
    pub controls: Vec<Trial>,
    /// What the file holds of statements of providers.
    pub statements: Vec<Statement>,
}

/// A control, and what it gave.
#[derive(Debug)]
pub struct Trial {
    /// Its id, or its place in the file where it has none.
    pub control: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// What the file changes of it: empty for a control of the file's own.
    pub changes: Vec<Change>,
    /// Whether the file defines it.
    pub is_own: bool,
    /// Its fixtures, in order of the file.
    pub runs: Vec<Run>,
    /// Verdicts that it must be shown to give and no fixture expects.
    pub missing: Vec<Verdict>,
    /// What is wrong with its definition.
    pub faults: Vec<Fault>,
}

/// A parameter that the file changes.
#[derive(Debug)]
pub struct Change {
    /// Its name.
    pub parameter: String,
    /// Its value in the built-in catalogue; `None` when there is no such parameter.
    pub from: Option<serde_json::Value>,
    /// Its value in the file.
    pub to: serde_json::Value,
}

/// What a control gave on a fixture.
#[derive(Debug)]
pub struct Run {
    /// Name of the fixture.
    pub fixture: String,
    /// What it expects.
    pub expects: String,
    /// What the control gave; `None` when the fixture is no host.
    pub gives: Option<Verdict>,
    /// The reason that the control gave; empty for a pass.
    pub reason: String,
    /// Why that is not what the fixture expects.
    pub fault: Option<Fault>,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// What is wrong, with the control and the place.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Each fixture gave what it expects, and they show each verdict.
    Sound,
    /// Nothing is wrong with it, and no fixture shows what it gives.
    Untested,
    /// Something is wrong.
    Wrong,
}

impl Trial {
    /// Returns how it ended.
    pub fn outcome(&self) -> Outcome {
        let is_wrong = !self.faults.is_empty() || self.runs.iter().any(|run| run.fault.is_some());
        match () {
            () if is_wrong => Outcome::Wrong,
            () if self.runs.is_empty() && !self.missing.is_empty() => Outcome::Untested,
            () if !self.missing.is_empty() => Outcome::Wrong,
            () => Outcome::Sound,
        }
    }
}

impl Trials {
    fn of(version: Option<String>) -> Self {
        Self { version, faults: Vec::new(), controls: Vec::new(), statements: Vec::new() }
    }

    /// Returns whether nothing is wrong and nothing is untested, so that a collector takes the file.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.controls.iter().all(|trial| trial.outcome() == Outcome::Sound)
    }
}

/// Tries the built-in controls.
pub fn of_built_in() -> Trials {
    let catalogue = Catalogue::built_in();
    let trial = |control: &Control| {
        let fixtures: Vec<&Fixture> = catalogue::of_control(fixture::built_in(), &control.id).collect();
        tried(control, &fixtures)
    };
    let controls = catalogue.controls().map(trial).collect();
    Trials { controls, ..Trials::of(Some(catalogue.version().to_owned())) }
}

/// Tries an operator's file: TOML, as the collector's setting `catalogue` names one.
pub fn of_file(text: &str) -> Trials {
    let overlay: Overlay = match toml::from_str(text) {
        Ok(overlay) => overlay,
        Err(error) => return unreadable(text, &error),
    };
    let mut trials = Trials { statements: overlay.statement.clone(), ..Trials::of(None) };
    let beside = Beside::built_in(overlay.statement).unwrap_or_else(|error| {
        trials.faults.push(fault(&error, None));
        Beside::built_in(Vec::new()).expect("no statement is wrong")
    });
    let definitions = catalogue::built_in_definitions();
    let mut built_in: BTreeMap<ControlId, Definition> =
        definitions.into_iter().map(|definition| (definition.id.clone(), definition)).collect();
    for (id, parameters) in overlay.parameters {
        match id.parse().ok().and_then(|id: ControlId| built_in.get_mut(&id)) {
            Some(definition) => trials.controls.push(changed(definition, parameters)),
            None => trials.faults.push(unknown_control(&id, built_in.keys())),
        }
    }
    let own: Vec<ControlId> = overlay.control.iter().map(|definition| definition.id.clone()).collect();
    for fixture in &overlay.fixture {
        let id: Option<ControlId> = fixture.control.parse().ok();
        match id {
            Some(id) if own.contains(&id) || trials.controls.iter().any(|trial| trial.control == id.as_str()) => {}
            Some(id) if built_in.contains_key(&id) => trials.controls.push(untried(&built_in[&id], false)),
            _ => trials.faults.push(unknown_control(&fixture.control, built_in.keys().chain(&own))),
        }
    }
    for trial in &mut trials.controls {
        let id: ControlId = trial.control.parse().expect("it is a built-in control's");
        try_on(trial, built_in[&id].clone(), &beside, &overlay.fixture);
    }
    for (index, definition) in overlay.control.into_iter().enumerate() {
        let mut trial = untried(&definition, true);
        if built_in.contains_key(&definition.id) || own[..index].contains(&definition.id) {
            trial.faults.push(fault(&Error::Twice(definition.id), None));
        } else {
            try_on(&mut trial, definition, &beside, &overlay.fixture);
        }
        trials.controls.push(trial);
    }
    confirmed(trials, text)
}

/// Has the collector's own loading say the last word.
fn confirmed(mut trials: Trials, text: &str) -> Trials {
    match Catalogue::with_overlay(text) {
        Ok(catalogue) => trials.version = Some(catalogue.version().to_owned()),
        Err(error) if trials.is_sound() => trials.faults.push(fault(&error, None)),
        Err(_) => {}
    }
    trials
}

fn untried(definition: &Definition, is_own: bool) -> Trial {
    Trial {
        control: definition.id.to_string(),
        title: definition.title.clone(),
        changes: Vec::new(),
        is_own,
        runs: Vec::new(),
        missing: Vec::new(),
        faults: Vec::new(),
    }
}

/// Sets parameters of a built-in control one by one, so that each that is wrong is told.
fn changed(definition: &mut Definition, parameters: serde_json::Map<String, serde_json::Value>) -> Trial {
    let mut trial = untried(definition, false);
    for (parameter, to) in parameters {
        let from = definition.parameters.get(&parameter).cloned();
        let one = serde_json::Map::from_iter([(parameter.clone(), to.clone())]);
        if let Err(error) = catalogue::set_parameters(definition, one) {
            trial.faults.push(fault(&error, Some(definition)));
        }
        trial.changes.push(Change { parameter, from, to });
    }
    trial
}

/// Builds a control and runs its fixtures: those beneath it, and those of the file that name it.
fn try_on(trial: &mut Trial, definition: Definition, beside: &Beside, fixtures: &[Fixture]) {
    let own = if trial.is_own { definition.fixture.clone() } else { Vec::new() };
    let id = definition.id.clone();
    match catalogue::build(definition.clone(), beside) {
        Ok(control) => {
            let fixtures: Vec<&Fixture> = own.iter().chain(catalogue::of_control(fixtures, &id)).collect();
            let done = tried(&control, &fixtures);
            trial.runs = done.runs;
            trial.faults.extend(done.faults);
            // What a built-in control gives is shown by its own fixtures.
            trial.missing = if trial.is_own { done.missing } else { Vec::new() };
        }
        Err(error) => trial.faults.push(fault(&error, Some(&definition))),
    }
}

fn tried(control: &Control, fixtures: &[&Fixture]) -> Trial {
    let run = |fixture: &&Fixture| {
        let fixture::Run { judgement, fault: error } = fixture.run(control);
        let failed = judgement.as_ref().filter(|judgement| judgement.verdict == Verdict::Fail);
        let unnamed = failed.and_then(|_| fixture.unnamed(control));
        Run {
            fixture: fixture.name.clone(),
            expects: fixture.expect.clone(),
            gives: judgement.as_ref().map(|judgement| judgement.verdict),
            reason: judgement.map(|judgement| judgement.reason).unwrap_or_default(),
            fault: error
                .map(|error| fault(&error, None))
                .or_else(|| unnamed.map(|why| nothing_named(control, &fixture.name, &why))),
        }
    };
    Trial {
        control: control.id.to_string(),
        title: control.title.clone(),
        changes: Vec::new(),
        is_own: false,
        runs: fixtures.iter().map(run).collect(),
        missing: fixture::missing(control, fixtures.iter().copied()),
        faults: mistake::of(control).iter().map(|mistake| not_meant(control, mistake)).collect(),
    }
}

/// Says that offenders, which decide nothing, leave a failure without its reason.
fn nothing_named(control: &Control, fixture: &str, why: &str) -> Fault {
    Fault {
        what: format!("control {}: its offenders name nothing of fixture \"{fixture}\": {why}", control.id),
        advice: "make them a list of texts: [\"only \" + string(system.processors)]; has(x) asks whether x was told"
            .to_owned(),
    }
}

fn not_meant(control: &Control, mistake: &Mistake) -> Fault {
    Fault { what: format!("control {}: {mistake}", control.id), advice: mistake.advice() }
}

/// Says of a file that is not as documented where, and of which control.
fn unreadable(text: &str, error: &toml::de::Error) -> Trials {
    let line = |start: usize| 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
    let line = error.span().map(|span| line(span.start));
    let place = line.map_or_else(String::new, |line| format!("line {line}: "));
    let advice = || "compare it with the example: musterctl controls test --example".to_owned();
    let controls: Vec<toml::Value> = toml::from_str::<toml::Table>(text)
        .ok()
        .and_then(|mut table| table.remove("control"))
        .and_then(|controls| controls.as_array().cloned())
        .unwrap_or_default();
    let mut trials = Trials::of(None);
    for (index, value) in controls.into_iter().enumerate() {
        let told = |key: &str| value.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let control = told("id").unwrap_or_else(|| format!("control {} of the file", index + 1));
        let title = told("title").unwrap_or_default();
        if let Err(error) = value.try_into::<Definition>() {
            let fault = Fault { what: format!("{control}: {}", one_line(error.message())), advice: advice() };
            trials.controls.push(Trial {
                control,
                title,
                changes: Vec::new(),
                is_own: true,
                runs: Vec::new(),
                missing: Vec::new(),
                faults: vec![fault],
            });
        }
    }
    // The whole says the line, its parts say the control.
    let what = format!("{place}{}", one_line(error.message()));
    trials.faults.push(Fault { what, advice: advice() });
    trials
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown_control<'a>(id: &str, known: impl Iterator<Item = &'a ControlId>) -> Fault {
    let known: Vec<String> = known.map(ToString::to_string).collect();
    Fault {
        what: Error::UnknownControl(id.to_owned()).to_string(),
        advice: format!("name one of: {}", known.join(", ")),
    }
}

/// Returns what is wrong and what to do. `definition` is the control's, where it is known.
fn fault(error: &Error, definition: Option<&Definition>) -> Fault {
    Fault { what: chain(error), advice: advice(error, definition) }
}

fn chain(error: &Error) -> String {
    match error {
        Error::Expression { control, source } => format!("control {control}: {source}"),
        error => error.to_string(),
    }
}

fn advice(error: &Error, definition: Option<&Definition>) -> String {
    let parameters = || definition.map(|it| it.parameters.clone()).unwrap_or_default();
    match error {
        Error::Text(_) | Error::Entry => "compare it with the example: musterctl controls test --example".to_owned(),
        Error::TooLong { .. } => "shorten comments and texts, or leave out controls".to_owned(),
        Error::Twice(_) => {
            "give it another id; of a built-in control only parameters can be changed, under [parameters.ID]".to_owned()
        }
        Error::UnknownControl(_) => "see the ids: musterctl controls test".to_owned(),
        Error::UnknownParameter { .. } => match parameters() {
            none if none.is_empty() => "this control has no parameters".to_owned(),
            some => format!("it has: {}", list(some.keys().cloned())),
        },
        Error::Parameter { expected, .. } => format!("write {expected}"),
        Error::UnknownFramework { .. } => format!("name one of: {}", list(framework::all().keys().cloned())),
        Error::UnknownRequirement { framework, requirement, .. } => requirements(framework, requirement),
        Error::Statement { .. } => "correct it; the document itself stays with you: musterctl controls statement --help".to_owned(),
        Error::Field { .. } => "correct it; the example shows each field: musterctl controls test --example".to_owned(),
        Error::Expression { source, .. } => expression_advice(source, parameters()),
        Error::NoFixture { verdict, .. } => format!(
            "add one beneath the control: [[control.fixture]] with name, expect = \"{verdict}\", and what to set of the sample host"
        ),
        Error::Fixture { .. } => {
            "correct the condition, or what the fixture sets or expects; the sample host is shown by: musterctl controls fields"
                .to_owned()
        }
    }
}

fn expression_advice(error: &expression::Error, parameters: serde_json::Map<String, serde_json::Value>) -> String {
    match error {
        expression::Error::Syntax(_) => "write it in CEL, such as: system.processors >= param.least".to_owned(),
        expression::Error::TooLong => "shorten it, or make two controls of it".to_owned(),
        expression::Error::TooManySteps { .. } => "iterate over one list of facts at a time".to_owned(),
        expression::Error::UnknownName(path) => {
            let (above, names) = field::beside(&sample::schema(&parameters), path);
            match above.as_str() {
                "" => format!("it may read: {}", list(names.into_iter())),
                above if names.is_empty() => format!("{above} has no fields"),
                above => format!("{above} has: {}", list(names.into_iter())),
            }
        }
        expression::Error::Unsound(_) => {
            "read the field itself; what could not be told then makes the verdict unknown; is_absent('a.path') asks for absence alone"
                .to_owned()
        }
        expression::Error::Types(_) => "compare it with a value of its own kind: musterctl controls fields".to_owned(),
    }
}

/// Says which requirements a framework has beside one that it does not have: those that begin alike, or else the first.
fn requirements(framework: &str, requirement: &str) -> String {
    let Some(framework) = framework::of(framework) else { return String::new() };
    let stem = requirement.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
    let stem = if stem.is_empty() { requirement.split('.').next().unwrap_or_default() } else { stem };
    let alike: Vec<String> = framework.ids.iter().filter(|id| id.starts_with(stem)).cloned().collect();
    let names = if alike.is_empty() { framework.ids.clone() } else { alike };
    let lacks = framework.lacks.as_ref().map_or_else(String::new, |lacks| format!("; the list lacks {lacks}"));
    format!("{} has: {}{lacks}", framework.title, list(names.into_iter()))
}

/// Returns the first few of `names`, and how many more there are.
fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    let text = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(trials: &'a Trials, control: &str) -> &'a Trial {
        trials.controls.iter().find(|trial| trial.control == control).unwrap()
    }

    #[test]
    fn every_built_in_control_is_sound_and_shown_to_give_each_verdict() {
        let trials = of_built_in();
        assert_eq!(trials.controls.len(), Catalogue::built_in().controls().len());
        for trial in &trials.controls {
            let faults: Vec<_> = trial.runs.iter().filter_map(|run| run.fault.as_ref()).collect();
            assert_eq!(trial.outcome(), Outcome::Sound, "{}: {faults:?} {:?}", trial.control, trial.missing);
        }
        assert!(trials.is_sound());
    }

    #[test]
    fn the_example_is_sound_and_shows_a_change_and_a_control() {
        let trials = of_file(EXAMPLE);
        assert!(trials.is_sound(), "{trials:#?}");
        assert_eq!(trials.version.as_deref(), Some(Catalogue::with_overlay(EXAMPLE).unwrap().version()));
        let inv = of(&trials, "INV-02");
        assert_eq!((inv.is_own, inv.changes.len(), inv.runs.len()), (false, 1, 1));
        let acme = of(&trials, "ACME-01");
        assert!(acme.is_own && acme.runs.len() >= 3, "{acme:?}");
    }

    /// Each is a change of the example, what is said of it, and what is advised.
    const WRONG: [(&str, &str, &str, &str); 17] = [
        ("software.packages", "sofware.packages", "control ACME-01: expression reads `sofware", "it may read: "),
        (
            "p.name ==",
            "p.nam ==",
            "reads `software.packages[].nam`",
            "software.packages[] has: architecture, manager, name",
        ),
        ("== param.package", "== param.pakage", "reads `param.pakage`", "param has: package"),
        ("p.name == param.package", "p.name == 1", "with a value of another type", "musterctl controls fields"),
        (
            "p.name == param.package)",
            "p.name == param.package",
            "control ACME-01: expression is not CEL",
            "write it in CEL",
        ),
        ("p.name == param.package", "has(p.name)", "uses has()", "is_absent('a.path')"),
        ("soc2 = [\"CC6.8\"]", "soc3 = [\"CC6.8\"]", "the framework `soc3`", "name one of: cis_v8, "),
        (
            "soc2 = [\"CC6.8\"]",
            "soc2 = [\"CC6.9\"]",
            "names `CC6.9`",
            "AICPA Trust Services Criteria 2017 has: CC1.1, ",
        ),
        ("cis_v8 = [\"2.5\"]", "cis_v8 = [\"2.9\"]", "names `2.9`", "CIS Controls 8.1 has: 2.1, 2.2, 2.3"),
        ("\"ACME-01\"", "\"ENC-01\"", "control ENC-01 is defined twice", "under [parameters.ID]"),
        ("[parameters.INV-02]", "[parameters.INV-99]", "there is no control INV-99", "name one of: ACC-01, "),
        ("max_silence_hours =", "max_silence =", "no parameter `max_silence`", "it has: max_silence_hours"),
        ("server = 2 }", "server = \"2\" }", "must be a table with `*`", "write a table with `*`"),
        ("control = \"INV-02\"", "control = \"INV-99\"", "there is no control INV-99", "name one of: "),
        (
            "silent = \"3h\"",
            "silent = \"1h\"",
            "fixture \"a server that has been silent for three hours\" gives pass",
            "correct the condition",
        ),
        ("severity = \"medium\"", "severe = \"medium\"", "ACME-01: unknown field `severe`", "controls test --example"),
        ("\"14d\"", "\"14 days\"", "bad remediation.limit", "controls test --example"),
    ];

    #[test]
    fn what_is_wrong_is_told_with_its_control_and_what_to_do() {
        for (good, bad, what, advice) in WRONG {
            assert!(EXAMPLE.contains(good), "the example has no {good}");
            let trials = of_file(&EXAMPLE.replacen(good, bad, 1));
            assert!(!trials.is_sound(), "{bad}");
            assert_eq!(trials.version, None, "{bad}");
            let of_runs = trials.controls.iter().flat_map(|trial| &trial.runs).filter_map(|run| run.fault.as_ref());
            let faults: Vec<&Fault> = trials
                .faults
                .iter()
                .chain(trials.controls.iter().flat_map(|trial| &trial.faults))
                .chain(of_runs)
                .collect();
            let told = faults.iter().any(|fault| fault.what.contains(what) && fault.advice.contains(advice));
            assert!(told, "{bad}: {faults:#?}");
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_not_the_first_alone() {
        let text = EXAMPLE
            .replace("silent = \"3h\"", "silent = \"1h\"")
            .replace("p.name == param.package", "p.nam == param.package")
            + "\n[[control]]\nid = \"ACME-02\"\n";
        // A control that is not as documented hides what is wrong with the others, and is named.
        let trials = of_file(&text);
        assert!(of(&trials, "ACME-02").faults[0].what.contains("missing field `title`"), "{trials:#?}");
        assert!(trials.faults[0].what.starts_with("line "), "{trials:#?}");
        let trials = of_file(text.split("\n[[control]]\nid = \"ACME-02\"").next().unwrap());
        assert_eq!(of(&trials, "INV-02").outcome(), Outcome::Wrong);
        assert_eq!(of(&trials, "ACME-01").outcome(), Outcome::Wrong);
    }

    #[test]
    fn a_control_without_fixtures_is_untested_and_the_collector_does_not_take_it() {
        let untested = EXAMPLE.split("[[control.fixture]]").next().unwrap();
        let trials = of_file(untested);
        let trial = of(&trials, "ACME-01");
        assert_eq!((trial.outcome(), trial.missing.len()), (Outcome::Untested, 3));
        assert!(!trials.is_sound());
        assert!(matches!(Catalogue::with_overlay(untested), Err(Error::NoFixture { .. })));
        // One fixture is not enough, and a verdict that is missing is not called untested.
        let one = EXAMPLE.replacen("expect = \"unknown\"", "expect = \"no_data\"", 1);
        assert_eq!(of(&of_file(&one), "ACME-01").missing, [Verdict::Unknown]);
    }

    #[test]
    fn offenders_that_name_nothing_of_a_failure_are_wrong_and_stop_no_collector() {
        for (offenders, why) in [
            ("'not installed: ' + param.package", "they are no list"),
            ("['not installed: ' + 1]", "a type that the operation does not take"),
            ("size(param.package) > 99 ? ['x'] : []", "a list without a text or a number"),
            ("[software.packages[7].name]", "a list is shorter than its index"),
            ("['not installed: ' + param.package]", ""),
            ("[1]", ""),
        ] {
            let text = EXAMPLE.replacen("['not installed: ' + param.package]", offenders, 1).replacen(
                "reason = \"not installed: acme-sensor\"\n",
                "",
                1,
            );
            assert!(Catalogue::with_overlay(&text).is_ok(), "{offenders}");
            let trials = of_file(&text);
            let faults: Vec<_> = of(&trials, "ACME-01").runs.iter().filter_map(|run| run.fault.as_ref()).collect();
            assert_eq!(faults.len(), usize::from(!why.is_empty()), "{offenders}: {faults:?}");
            let told = |fault: &&Fault| fault.what.contains("\"a server without it\"") && fault.what.contains(why);
            assert!(faults.iter().all(told), "{offenders}: {faults:?}");
            assert_eq!(trials.is_sound(), why.is_empty(), "{offenders}");
        }
    }

    #[test]
    fn a_fixture_beneath_one_control_cannot_be_of_another() {
        let text = EXAMPLE.replacen("[[control.fixture]]", "[[control.fixture]]\ncontrol = \"ENC-01\"", 1);
        let trials = of_file(&text);
        let run = &of(&trials, "ACME-01").runs[0];
        assert!(run.fault.as_ref().unwrap().what.contains("names ENC-01"), "{run:?}");
        assert!(Catalogue::with_overlay(&text).is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_is_changed_in_a_file_a_trial_and_the_collector_agree(
            cut in proptest::collection::vec((0..100_usize, 0..3_u8, "[a-z0-9 =\"\\[\\].é]{1,8}"), 1..3)
        ) {
            let mut lines: Vec<String> = EXAMPLE.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
            for (at, how, text) in cut {
                let at = at % lines.len();
                match how {
                    0 => drop(lines.remove(at)),
                    1 => lines[at].push_str(&text),
                    _ => lines[at] = lines[at].chars().rev().collect(),
                }
            }
            let text = lines.join("\n");
            proptest::prop_assert_eq!(of_file(&text).is_sound(), Catalogue::with_overlay(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn a_trial_and_the_collector_agree_on_which_files_are_sound() {
        let mut texts: Vec<String> = WRONG.iter().map(|(good, bad, ..)| EXAMPLE.replacen(good, bad, 1)).collect();
        texts
            .extend([EXAMPLE, "", " \n", "x", "[parameters]", "[parameters.ENC-01]", "[[fixture]]"].map(str::to_owned));
        texts.push("#".repeat(70_000));
        for text in texts {
            assert_eq!(of_file(&text).is_sound(), Catalogue::with_overlay(&text).is_ok(), "{text}");
        }
    }
}
