//! `controls test` and `controls fields`: an operator's file of controls, tried here. Needs no collector.

use std::path::Path;

use muster_proto::words::counted;
use serde_json::{Value, json};

use super::{
    Error, Outcome,
    print::{self, Cell, Out, Tone, safe, table},
};
use crate::{
    control::{
        Verdict, field,
        trial::{self, Fault, Run, Trial, Trials},
    },
    snapshot::archive,
};

/// Tries the controls of `file`, or the built-in controls, on their fixtures. No when something is wrong or untested.
///
/// # Errors
///
/// When the file cannot be read.
pub fn run(out: Out, file: Option<&Path>) -> Result<Outcome, Error> {
    let trials = match file {
        Some(file) => trial::of_file(&read(file)?),
        None => trial::of_built_in(),
    };
    let outcome = if trials.is_sound() { Outcome::Yes } else { Outcome::No };
    out.show(|| value(&trials), |out| text(out, file, &trials))?;
    Ok(outcome)
}

/// Returns the text of an operator's file.
///
/// # Errors
///
/// When it cannot be read, or is larger than any that a collector takes.
pub fn read(file: &Path) -> Result<String, Error> {
    let read = || -> std::io::Result<String> {
        if std::fs::metadata(file)?.len() > archive::BYTES as u64 {
            return Err(std::io::Error::other("it is larger than any file of controls"));
        }
        std::fs::read_to_string(file)
    };
    read().map_err(|source| Error::Read { path: file.to_owned(), source })
}

/// Prints a file of controls to begin with.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn example() -> Result<Outcome, Error> {
    print::write_out(trial::EXAMPLE)?;
    Ok(Outcome::Yes)
}

/// Prints what conditions may read. No when nothing begins with `prefix`.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn fields(out: Out, prefix: &str) -> Result<Outcome, Error> {
    let fields = field::all(prefix);
    out.show(
        || serde_json::to_value(&fields).expect("fields are JSON"),
        |out| {
            let row = |field: &field::Field| {
                let sample = match &field.sample {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                vec![Cell::from(field.path.as_str()), field.kind.into(), sample.into()]
            };
            table(out, &["PATH", "KIND", "SAMPLE HOST"], &fields.iter().map(row).collect::<Vec<_>>())
        },
    )?;
    if fields.is_empty() {
        print::say(&format!("no field begins with `{prefix}`; musterctl controls fields lists every one"));
        return Ok(Outcome::No);
    }
    Ok(Outcome::Yes)
}

fn text(out: Out, file: Option<&Path>, trials: &Trials) -> String {
    let mut text = String::new();
    let rows: Vec<Vec<Cell>> = trials.controls.iter().flat_map(rows).collect();
    if !rows.is_empty() {
        text.push_str(&table(out, &["CONTROL", "FIXTURE", "EXPECTS", "GIVES", "RESULT", "REASON GIVEN"], &rows));
    }
    for trial in &trials.controls {
        for change in &trial.changes {
            let from = change.from.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
            text.push_str(&format!(
                "\n{}  {} is {} instead of {}\n",
                safe(&trial.control),
                safe(&change.parameter),
                safe(&change.to.to_string()),
                safe(&from)
            ));
        }
    }
    for it in &trials.statements {
        let line = format!(
            "{} states {} of {} from {} until {} ({})",
            it.provider,
            it.kind.as_str(),
            counted(it.hosts.len(), "host"),
            it.from,
            it.until,
            it.reference
        );
        text.push_str(&format!("\n{}\n", safe(&line)));
    }
    let faults: Vec<Fault> = trials.faults.iter().cloned().chain(trials.controls.iter().flat_map(faults)).collect();
    if !faults.is_empty() {
        text.push_str(&format!("\n{}\n", out.tone(Tone::Bad, "Wrong")));
    }
    for fault in &faults {
        text.push_str(&format!("  - {}\n    {}\n", safe(&fault.what), out.tone(Tone::Dim, &safe(&fault.advice))));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text + &summary(out, file, trials, faults.len())
}

fn rows(trial: &Trial) -> Vec<Vec<Cell>> {
    let row = |run: &Run| {
        let (result, tone) = if run.fault.is_none() { ("ok", Tone::Good) } else { ("wrong", Tone::Bad) };
        vec![
            Cell::from(trial.control.as_str()),
            run.fixture.as_str().into(),
            run.expects.as_str().into(),
            run.gives.map_or("-", Verdict::as_str).into(),
            Cell::new(result, tone),
            run.reason.as_str().into(),
        ]
    };
    let mut rows: Vec<_> = trial.runs.iter().map(row).collect();
    for verdict in &trial.missing {
        let result = if trial.runs.is_empty() { "untested" } else { "missing" };
        rows.push(vec![
            trial.control.as_str().into(),
            Cell::new("-", Tone::Dim),
            verdict.as_str().into(),
            Cell::new("-", Tone::Dim),
            Cell::new(result, Tone::Doubt),
            "".into(),
        ]);
    }
    rows
}

/// Returns everything that is wrong with a control, what no fixture shows included.
fn faults(trial: &Trial) -> Vec<Fault> {
    let mut faults = trial.faults.clone();
    faults.extend(trial.runs.iter().filter_map(|run| run.fault.clone()));
    if !trial.missing.is_empty() {
        let missing = trial.missing.iter().map(|verdict| verdict.as_str()).collect::<Vec<_>>().join(", ");
        let is_untested = trial.runs.is_empty();
        let what = if is_untested { "is untested: it has no fixture" } else { "has too few fixtures: none" };
        faults.push(Fault {
            what: format!("control {} {what} that expects {missing}", trial.control),
            advice: "add [[control.fixture]] beneath it, with name, expect and what to set of the sample host; the collector takes no \
                     control without: musterctl controls test --example"
                .to_owned(),
        });
    }
    faults
}

fn summary(out: Out, file: Option<&Path>, trials: &Trials, wrong: usize) -> String {
    let name = file.map_or_else(|| "built-in controls".to_owned(), |file| file.display().to_string());
    let runs: usize = trials.controls.iter().map(|trial| trial.runs.len()).sum();
    let tried = format!("{}, {}", counted(trials.controls.len(), "control"), counted(runs, "fixture"));
    let (verdict, version) = match &trials.version {
        Some(version) if trials.is_sound() => (out.tone(Tone::Good, "SOUND"), format!(", catalogue {version}")),
        _ => (out.tone(Tone::Bad, "NOT SOUND"), format!(", {} wrong", counted(wrong, "thing"))),
    };
    format!("{verdict}  {}: {tried}{}\n", safe(&name), safe(&version))
}

fn value(trials: &Trials) -> Value {
    let fault = |fault: &Fault| json!({ "what": fault.what, "advice": fault.advice });
    let run = |run: &Run| {
        json!({
            "name": run.fixture, "expects": run.expects, "gives": run.gives.map(Verdict::as_str), "reason": run.reason,
            "as_expected": run.fault.is_none(), "fault": run.fault.as_ref().map(fault),
        })
    };
    let control = |trial: &Trial| {
        let changes: Vec<_> = trial
            .changes
            .iter()
            .map(|change| json!({ "parameter": change.parameter, "from": change.from, "to": change.to }))
            .collect();
        json!({
            "control_id": trial.control, "title": trial.title, "own": trial.is_own,
            "outcome": match trial.outcome() {
                trial::Outcome::Sound => "sound",
                trial::Outcome::Untested => "untested",
                trial::Outcome::Wrong => "wrong",
            },
            "changes": changes, "fixtures": trial.runs.iter().map(run).collect::<Vec<_>>(),
            "missing": trial.missing.iter().map(|verdict| verdict.as_str()).collect::<Vec<_>>(),
            "faults": trial.faults.iter().map(fault).collect::<Vec<_>>(),
        })
    };
    json!({
        "sound": trials.is_sound(), "catalogue_version": trials.version,
        "faults": trials.faults.iter().map(fault).collect::<Vec<_>>(),
        "controls": trials.controls.iter().map(control).collect::<Vec<_>>(), "statements": trials.statements,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::print::Form;

    fn shown(file: &str) -> String {
        text(Out::new(Form::Json), Some(Path::new("acme.toml")), &trial::of_file(file))
    }

    #[test]
    fn a_sound_file_is_shown_with_what_each_fixture_gave_and_what_is_changed() {
        let text = shown(trial::EXAMPLE);
        assert!(text.contains("ACME-01  a server with the sensor"), "{text}");
        assert!(text.contains("INV-02  max_silence_hours is {\"*\":24,\"server\":2} instead of {\"*\":24,"), "{text}");
        assert!(text.contains("\nSOUND  acme.toml: 2 controls, 5 fixtures, catalogue 2026.1+"), "{text}");
        assert!(!text.contains("wrong") && !text.contains("Wrong"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_shown_with_what_to_do_and_nothing_of_it_moves_a_terminal() {
        let text = shown(&trial::EXAMPLE.replace("expect = \"fail\"", "expect = \"f\\u001bil\""));
        assert!(text.contains("wrong") && text.contains("is none of pass, fail"), "{text}");
        assert!(text.contains("NOT SOUND  acme.toml"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let text = shown(trial::EXAMPLE.split("[[control.fixture]]").next().unwrap());
        assert!(text.contains("untested: it has no fixture that expects pass, fail, unknown"), "{text}");
        assert!(text.contains("[[control.fixture]]"), "{text}");
    }

    #[test]
    fn programs_get_every_trial() {
        let value = value(&trial::of_built_in());
        assert_eq!((&value["sound"], value["controls"][0]["outcome"].as_str()), (&Value::Bool(true), Some("sound")));
        let controls = value["controls"].as_array().unwrap();
        assert!(controls.iter().all(|control| control["fixtures"].as_array().unwrap().len() >= 2), "{value}");
    }
}
