//! Until when operating systems get security updates, from a dated table.

use std::collections::BTreeMap;

use muster_proto::{
    fact::{Fact, Reading},
    time::Timestamp,
};
use serde::{Deserialize, de::Error as _};

/// The table that is compiled in.
pub(super) const BUILT_IN: &str = include_str!("support.toml");
/// Seconds for which the table speaks of the present.
const TABLE_SECONDS: i64 = 400 * 24 * 3600;

/// When support of operating systems ends. Part of what a verdict rests on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// When the dates were collected.
    as_of: Timestamp,
    /// By `ID` of os-release and release: the first instant without security updates.
    end: BTreeMap<String, BTreeMap<String, End>>,
}

/// An instant, written in full or as the day (UTC) with which it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End(Timestamp);

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = text.parse().or_else(|error| format!("{text}T00:00:00Z").parse().map_err(|_| error));
        time.map(Self).map_err(D::Error::custom)
    }
}

impl Table {
    /// Returns the table of `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Returns the variable `support` for a host with this `system` fact, and why its `end_time` is absent if it is.
    pub(super) fn value(&self, system: Option<&Fact>, now: Timestamp) -> (serde_json::Value, Option<String>) {
        match end(self, system, now) {
            Ok(end) => (serde_json::json!({ "end_time": end.to_string() }), None),
            Err(why) => (serde_json::json!({}), Some(why)),
        }
    }
}

fn end(table: &Table, system: Option<&Fact>, now: Timestamp) -> Result<Timestamp, String> {
    let Some(Fact::System(Reading::Known(system))) = system else {
        return Err("absent (the host's system could not be told)".to_owned());
    };
    let known = |name, reading: &Reading<muster_proto::fact::Text>| match reading {
        Reading::Known(text) => Ok(text.as_str().to_owned()),
        Reading::Unknown { unknown } => {
            Err(format!("absent (system.{name} could not be told: {})", cause(unknown.cause)))
        }
    };
    let (id, version) = (known("os_id", &system.os_id)?, known("os_version", &system.os_version)?);
    if now.seconds() - table.as_of.seconds() > TABLE_SECONDS {
        return Err(format!("stale (the table of support dates is of {})", table.as_of));
    }
    let releases = table.end.get(&id).ok_or_else(|| format!("unsupported (no support dates for {id})"))?;
    // Enterprise distributions name minor releases, which are supported through their major release.
    let major = version.split('.').next().unwrap_or_default();
    let end = releases.get(&version).or_else(|| releases.get(major));
    end.map(|end| end.0).ok_or_else(|| format!("unsupported (no support dates for {id} {version})"))
}

fn cause(cause: muster_proto::fact::Cause) -> String {
    serde_json::to_value(cause).ok().and_then(|cause| cause.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_parses_and_every_release_has_a_date() {
        let table = Table::parse(BUILT_IN).unwrap();
        assert!(table.end.values().all(|releases| !releases.is_empty()));
        assert!(table.end["debian"].contains_key("12"));
    }

    #[test]
    fn an_end_is_an_instant_or_a_day() {
        let end = |text: &str| {
            let table = format!("as_of = \"2026-01-01T00:00:00Z\"\n[end.x]\n1 = \"{text}\"\n");
            Table::parse(&table).ok().map(|table| table.end["x"]["1"].0.to_string())
        };
        assert_eq!(end("2026-02-03").as_deref(), Some("2026-02-03T00:00:00Z"));
        assert_eq!(end("2026-02-03T04:05:06Z").as_deref(), Some("2026-02-03T04:05:06Z"));
        for text in ["", "2026-02", "2026-02-30", "2026-02-03T04:05", "tomorrow"] {
            assert_eq!(end(text), None, "{text}");
        }
    }

    #[test]
    fn a_release_has_the_date_of_itself_or_of_its_major_release() {
        let table = Table::parse(BUILT_IN).unwrap();
        let now = table.as_of;
        for (id, version, expected) in [
            ("rhel", "9.4", Some("2032-06-01T00:00:00Z")),
            ("sles", "15.6", Some("2026-01-01T00:00:00Z")),
            ("sles", "15.9", None),
            ("opensuse-leap", "15.6", Some("2026-05-01T00:00:00Z")),
            ("amzn", "2023", Some("2029-07-01T00:00:00Z")),
            ("linuxmint", "21.3", Some("2027-05-01T00:00:00Z")),
            ("ubuntu", "24.04", Some("2029-06-01T00:00:00Z")),
            ("arch", "", None),
        ] {
            let mut system = muster_proto::fact::sample::system();
            (system.os_id, system.os_version) = (Reading::Known(id.into()), Reading::Known(version.into()));
            let system = Fact::System(Reading::Known(system));
            assert_eq!(
                end(&table, Some(&system), now).ok().map(|end| end.to_string()).as_deref(),
                expected,
                "{id} {version}"
            );
        }
    }
}
