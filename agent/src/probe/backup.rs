//! Backup clients, by a dated table of known ones, and when a backup last ended well.
//!
//! Only a record that a client itself keeps on the host of a backup that ended well is taken for one. That a timer ran, a cache
//! changed or a process is there shows nothing of the kind. For the others a job touches a file that the settings name.

mod records;

use std::{collections::BTreeSet, path::Path, sync::LazyLock};

use muster_proto::{
    fact::{Backup, BackupClient, BackupStamp, Cause, Fact, PathText, Reading, Text, Unknown},
    report,
    time::Timestamp,
};
use serde::Deserialize;

use super::{
    Look, Probe,
    packages::{self, Packages},
};
use crate::host::{self, Host};

/// The table that is compiled in.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(include_str!("backup/known.toml")).expect("a test reads the table"));
const HOUR_SECONDS: i64 = 3_600;

/// The clients that this build knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// When it was collected.
    as_of: Timestamp,
    /// In order of name.
    client: Vec<Known>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: String,
    product: String,
    programs: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    settings: Vec<String>,
    #[serde(default)]
    record: Record,
}

/// How a client's record is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Record {
    /// It keeps none that is known to be sound.
    #[default]
    None,
    Duplicity,
    Rsnapshot,
}

/// The probe of `backup`.
pub struct BackupProbe;

impl Probe for BackupProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Backup
    }

    fn name(&self) -> &'static str {
        "backup"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let (clients, complete) = clients(look, &TABLE);
        let mut stamps: Vec<_> = look.settings.backup_stamps.iter().map(|path| stamp(look, path)).collect();
        stamps.sort_by(|a, b| a.path.cmp(&b.path));
        stamps.dedup_by(|a, b| a.path == b.path);
        vec![Fact::Backup(Reading::Known(Backup { clients, complete, table_time: TABLE.as_of, stamps }))]
    }
}

fn clients(look: &Look<'_>, table: &Table) -> (Vec<BackupClient>, Reading<bool>) {
    let host = look.host;
    let names: BTreeSet<&str> = table.client.iter().flat_map(|known| &known.packages).map(String::as_str).collect();
    let packages = packages::look(host, &names);
    let mut complete = Reading::Known(true);
    let mut clients = Vec::new();
    for known in &table.client {
        match first(host, &known.programs) {
            Ok(Some(program)) => clients.push(client(look, known, program, &packages)),
            Ok(None) => {}
            Err(unknown) => complete = Reading::Unknown { unknown },
        }
    }
    (clients, complete)
}

fn client(look: &Look<'_>, known: &Known, program: &str, packages: &Result<Packages, Unknown>) -> BackupClient {
    let host = look.host;
    let (package, version) = packages::owner(host, packages, &known.packages, program);
    let has_settings = if known.settings.is_empty() {
        Reading::unknown(Cause::Unsupported, format!("{} has settings at no known place", known.product))
    } else {
        match first(host, &known.settings) {
            Ok(found) => Reading::Known(found.is_some()),
            Err(unknown) => Reading::Unknown { unknown },
        }
    };
    let last_success_time = match known.record {
        Record::None => {
            let detail = format!("this build knows of no record of {} on the host: see backup_stamps", known.product);
            Reading::unknown(Cause::Unsupported, detail)
        }
        Record::Duplicity => records::duplicity(host),
        Record::Rsnapshot => records::rsnapshot(host),
    };
    BackupClient {
        name: Text::new(&known.name),
        product: Text::new(&known.product),
        program: PathText::from_bytes(program.as_bytes()),
        package,
        version,
        has_settings,
        last_success_time: super::past(last_success_time, look.now).map(hour),
    }
}

/// Returns the first of `paths` that is there.
fn first<'a>(host: &dyn Host, paths: &'a [String]) -> Result<Option<&'a str>, Unknown> {
    for path in paths {
        match host.metadata(Path::new(path)) {
            Ok(_) => return Ok(Some(path)),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {path}"), &error)),
        }
    }
    Ok(None)
}

fn stamp(look: &Look<'_>, path: &Path) -> BackupStamp {
    let last_success_time = match look.host.metadata(path) {
        Ok(metadata) => metadata.modified_time(),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {}", path.display()), &error) },
    };
    BackupStamp {
        path: PathText::from_bytes(&host::path_bytes(path)),
        last_success_time: super::past(last_success_time, look.now).map(hour),
    }
}

/// Returns the begin of the hour: a job of every few minutes would make a report of every look.
fn hour(time: Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.seconds() / HOUR_SECONDS * HOUR_SECONDS).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_of_name_and_names_absolute_places() {
        let names: Vec<&str> = TABLE.client.iter().map(|known| known.name.as_str()).collect();
        assert!(names.is_sorted() && names.len() >= 14, "{names:?}");
        for known in &TABLE.client {
            let mut paths = known.programs.iter().chain(&known.settings);
            assert!(!known.programs.is_empty() && paths.all(|path| path.starts_with('/')), "{}", known.name);
        }
    }

    #[test]
    fn a_time_is_cut_to_its_hour() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(hour(time("2026-11-26T13:59:59.9Z")), time("2026-11-26T13:00:00Z"));
    }
}
