//! Malware protection and other sensors, by a dated table of known ones.
//!
//! What counts is a program at its known place, the package that owns it, and a process that executes it. Of what a sensor
//! does, only what its own files say is told; what is kept in its console or its databases is unknown(unsupported).

mod clamav;
mod defender;

use std::{collections::BTreeSet, path::Path, sync::LazyLock};

use muster_proto::{
    fact::{Cause, Fact, PathText, Reading, Sensor, SensorKind, SensorMode, SensorSeen, Sensors, Text, Unknown},
    report,
    time::Timestamp,
};
use serde::Deserialize;

use super::{
    Look, Probe,
    packages::{self, Packages},
    processes::{self, Process},
};
use crate::host::{self, Host};

/// The table that is compiled in.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(include_str!("sensors/known.toml")).expect("a test reads the table"));

/// The sensors that this build knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// When it was collected.
    as_of: Timestamp,
    /// In order of name.
    sensor: Vec<Known>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: String,
    product: String,
    vendor: String,
    kind: SensorKind,
    programs: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    units: Vec<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    definitions: Definitions,
}

/// How the mode of a sensor is found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Unreadable,
    /// It has no other.
    Detect,
    Clamav,
    MicrosoftDefender,
}

/// How the age of a sensor's definitions is found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Definitions {
    /// It has none that age.
    #[default]
    None,
    Unreadable,
    Clamav,
}

/// The probe of `sensors`.
pub struct SensorsProbe;

impl Probe for SensorsProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Sensors
    }

    fn name(&self) -> &'static str {
        "sensors"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::Sensors(Reading::Known(sensors(look.host, &TABLE, look.now)))]
    }
}

fn sensors(host: &dyn Host, table: &Table, now: Timestamp) -> Sensors {
    let processes = processes::look(host);
    let names: BTreeSet<&str> = table.sensor.iter().flat_map(|known| &known.packages).map(String::as_str).collect();
    let packages = packages::look(host, &names);
    let mut complete = Reading::Known(true);
    let mut found = Vec::new();
    for known in &table.sensor {
        let (running, seen) = processes::running(host, &processes, &known.programs, &known.units);
        let program = program(host, known);
        if let Err(unknown) = &program {
            complete = Reading::Unknown { unknown: unknown.clone() };
        }
        // A name alone is no sign of a sensor whose program is not there.
        if !matches!(program, Ok(Some(_))) && running != Reading::Known(true) {
            continue;
        }
        let (package, version) = match &program {
            Ok(Some(program)) => packages::owner(host, &packages, &known.packages, program),
            Ok(None) => unowned(&packages),
            Err(unknown) => {
                (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown: unknown.clone() })
            }
        };
        let (running, seen) = match stranger(known, &packages) {
            Some(unknown) if running == Reading::Known(true) => (Reading::Unknown { unknown }, SensorSeen::None),
            _ => (running, seen),
        };
        let program = program.ok().flatten().unwrap_or_default();
        found.push(Sensor {
            name: Text::new(&known.name),
            product: Text::new(&known.product),
            vendor: Text::new(&known.vendor),
            kind: known.kind,
            program: PathText::from_bytes(program.as_bytes()),
            package,
            version,
            mode: mode(host, known, &processes),
            uses_definitions: known.definitions != Definitions::None,
            definitions_time: definitions_time(host, known, &processes).map(|time| super::past(time, now)),
            running,
            seen,
        });
    }
    if let Err(unknown) = &processes
        && complete.known().is_some()
    {
        complete = Reading::Unknown { unknown: unknown.clone() };
    }
    Sensors { sensors: found, complete, table_time: table.as_of }
}

/// Returns the first of its programs that is there.
fn program(host: &dyn Host, known: &Known) -> Result<Option<String>, Unknown> {
    for program in &known.programs {
        match host.metadata(Path::new(program)) {
            Ok(_) => return Ok(Some(program.clone())),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {program}"), &error)),
        }
    }
    Ok(None)
}

/// Returns why what runs at a sensor's place need not be the sensor: any program can be put there, but its packages are not installed.
///
/// Of a sensor that comes in no package, and on a host whose packages cannot be read, its place is all that there is.
fn stranger(known: &Known, packages: &Result<Packages, Unknown>) -> Option<Unknown> {
    let packages = packages.as_ref().ok()?;
    let is_foreign = !known.packages.is_empty() && !known.packages.iter().any(|name| packages.contains_key(name));
    let detail = || format!("{} runs at its place, and dpkg has no {}", known.product, known.packages.join(" or "));
    is_foreign.then(|| Unknown::new(Cause::Undecidable, detail()))
}

fn unowned(packages: &Result<Packages, Unknown>) -> (Reading<Text>, Reading<Text>) {
    let unknown = match packages {
        Ok(_) => Unknown::new(Cause::Absent, "its program is not at a known place"),
        Err(unknown) => unknown.clone(),
    };
    (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown })
}

fn mode(host: &dyn Host, known: &Known, processes: &Result<Vec<Process>, Unknown>) -> Reading<SensorMode> {
    match known.mode {
        Mode::Unreadable => {
            Reading::unknown(Cause::Unsupported, format!("this build cannot read the mode of {}", known.product))
        }
        Mode::Detect => Reading::Known(SensorMode::Detect),
        Mode::Clamav => clamav::mode(host, processes),
        Mode::MicrosoftDefender => defender::mode(host),
    }
}

fn definitions_time(
    host: &dyn Host,
    known: &Known,
    processes: &Result<Vec<Process>, Unknown>,
) -> Option<Reading<Timestamp>> {
    match known.definitions {
        Definitions::None => None,
        Definitions::Unreadable => {
            let detail = format!("this build cannot read the definitions of {}", known.product);
            Some(Reading::unknown(Cause::Unsupported, detail))
        }
        Definitions::Clamav => {
            let processes = processes.as_deref().unwrap_or_default();
            let daemons = processes::of(host, processes, &known.programs, &known.units);
            Some(clamav::definitions_time(host, &daemons))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_at_the_place_of_a_sensor_that_is_not_installed_may_be_another() {
        let of = |name: &str| TABLE.sensor.iter().find(|known| known.name == name).unwrap();
        let installed = |name: &str| Ok(Packages::from([(name.to_owned(), ("1".to_owned(), "amd64".to_owned()))]));
        let unread = Err(Unknown::new(Cause::Unsupported, "no dpkg"));
        for (name, packages, expected) in [
            ("microsoft_defender", installed("mdatp"), false),
            ("microsoft_defender", installed("falcon-sensor"), true),
            ("eset", installed("eea"), false),
            ("eset", Ok(Packages::new()), true),
            // It has no package, or none can be read.
            ("sophos", Ok(Packages::new()), false),
            ("microsoft_defender", unread, false),
        ] {
            assert_eq!(stranger(of(name), &packages).is_some(), expected, "{name} {packages:?}");
        }
    }

    #[test]
    fn what_runs_in_the_place_of_a_sensor_is_not_known_to_be_it() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sensors/debian-12-clamav");
        let host = crate::host::Recorded::at(&case).unwrap();
        let now = "2026-11-26T14:00:00Z".parse().unwrap();
        let mut table: Table = toml::from_str(include_str!("sensors/known.toml")).unwrap();
        assert_eq!(sensors(&host, &table, now).sensors[0].running, Reading::Known(true));
        table.sensor.iter_mut().for_each(|known| known.packages = vec!["not-installed".to_owned()]);
        let found = sensors(&host, &table, now).sensors;
        assert_eq!((found[0].running.known(), found[0].seen), (None, SensorSeen::None));
    }

    #[test]
    fn the_table_is_in_order_of_name_and_names_absolute_places() {
        let names: Vec<&str> = TABLE.sensor.iter().map(|known| known.name.as_str()).collect();
        assert!(names.is_sorted() && names.len() >= 13, "{names:?}");
        for known in &TABLE.sensor {
            assert!(!known.programs.is_empty() && !known.units.is_empty(), "{}", known.name);
            assert!(known.programs.iter().all(|program| program.starts_with('/')), "{}", known.name);
            assert!(known.units.iter().all(|unit| unit.ends_with(".service")), "{}", known.name);
        }
    }
}
