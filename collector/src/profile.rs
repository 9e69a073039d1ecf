//! Profiles: what agents are told to watch and how often to look, by class of host.
//!
//! Pure: which profile a host should have follows from the file and from what its own reports said. It names no command and no host.

use std::collections::BTreeMap;

use muster_proto::{
    fact::HostClass,
    limits,
    report::Probe,
    v1,
    watch_set::{self, WatchSet},
};
use prost::Message as _;
use serde::Deserialize;

use crate::views::AgentRow;

/// Seconds between two looks of a probe.
const SECONDS: std::ops::RangeInclusive<u32> = 10..=86_400;
/// Bytes of an encoded profile, at most: the rest of a message is for what it is sent in.
const PROFILE_BYTES: usize = limits::AGENT_MESSAGE_BYTES - 1024;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no such file.
    #[error("{0}")]
    Form(#[from] toml::de::Error),
    /// The revision is none.
    #[error("revision is {0}, expected 1 or more: let it grow with each change, for agents take no other profile")]
    Revision(u64),
    /// A profile is wrong.
    #[error("profile {place}: {what}")]
    Profile {
        /// Its place in the file, from 1.
        place: usize,
        /// What is wrong and what to do.
        what: String,
    },
}

/// The profiles of a fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles {
    revision: u64,
    /// In order: the first whose classes have a host's counts.
    profiles: Vec<(Vec<HostClass>, v1::Profile)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Grows with each change.
    revision: u64,
    /// In order: the first that a host's class is in counts.
    #[serde(default)]
    profile: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Classes of host; none is all, also those that cannot be told.
    #[serde(default)]
    classes: Vec<HostClass>,
    /// Seconds between looks, by name of probe.
    #[serde(default)]
    seconds: BTreeMap<String, u32>,
    /// Watch sets in place of those of the agent; none keeps them.
    #[serde(default)]
    watch_sets: Vec<WatchSet>,
}

impl Profiles {
    /// Parses the file of profiles.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text)?;
        if file.revision == 0 || i64::try_from(file.revision).is_err() {
            return Err(Error::Revision(file.revision));
        }
        let profile = |(at, written): (usize, Written)| {
            let classes = written.classes.clone();
            let profile = to_wire(file.revision, &written).map_err(|what| Error::Profile { place: at + 1, what })?;
            Ok((classes, profile))
        };
        let profiles = file.profile.into_iter().enumerate().map(profile).collect::<Result<_, Error>>()?;
        Ok(Self { revision: file.revision, profiles })
    }

    /// Returns the profile that the agent of `row` should be given: it has an older one, and its class is in one of the file.
    ///
    /// `None` for one that has not yet said what kind of host it is: it would keep the profile of another class.
    pub fn for_agent(&self, row: &AgentRow) -> Option<&v1::Profile> {
        let class = HostClass::parse(&row.host_class);
        if row.profile_revision >= self.revision || (class.is_none() && row.hostname.is_empty()) {
            return None;
        }
        let is_of = |classes: &[HostClass]| classes.is_empty() || class.is_some_and(|class| classes.contains(&class));
        self.profiles.iter().find(|(classes, _)| is_of(classes)).map(|(_, profile)| profile)
    }
}

fn to_wire(revision: u64, written: &Written) -> Result<v1::Profile, String> {
    watch_set::check(&written.watch_sets).map_err(|error| error.to_string())?;
    let interval = |(name, seconds): (&String, &u32)| {
        let probe = Probe::from_str_name(&format!("PROBE_{}", name.to_ascii_uppercase()));
        let probe = probe.filter(|probe| *probe != Probe::Unspecified);
        let probe = probe.ok_or_else(|| format!("seconds: no probe is named {name:?}"))?;
        if !SECONDS.contains(seconds) {
            return Err(format!("seconds: {name} is {seconds}, expected 10 to 86400"));
        }
        Ok(v1::ProbeInterval { probe: probe.into(), seconds: *seconds })
    };
    let profile = v1::Profile {
        revision,
        intervals: written.seconds.iter().map(interval).collect::<Result<_, _>>()?,
        watched_paths: Vec::new(),
        watch_sets: written.watch_sets.iter().map(WatchSet::to_wire).collect(),
    };
    match profile.encoded_len() {
        bytes if bytes > PROFILE_BYTES => Err(format!("it takes {bytes} bytes, expected at most {PROFILE_BYTES}")),
        _ => Ok(profile),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::id::{AgentId, Digest};

    use super::*;

    const FILE: &str = r#"
        revision = 4
        [[profile]]
        classes = ["laptop", "desktop"]
        seconds = { firewall = 120 }
        [[profile]]
        [[profile.watch_sets]]
        name = "web"
        paths = ["/srv/www"]
        exclude = ["srv/www/cache"]
        severity = "high"
    "#;

    fn row(hostname: &str, class: &str, profile_revision: u64) -> AgentRow {
        let new = AgentRow::new(AgentId::from_slice(&[7; 16]).unwrap(), Digest::of_bytes(b""));
        AgentRow { hostname: hostname.to_owned(), host_class: class.to_owned(), profile_revision, ..new }
    }

    #[test]
    fn a_host_is_given_the_first_profile_of_its_class_until_it_has_it() {
        let profiles = Profiles::parse(FILE).unwrap();
        let given = |hostname: &str, class: &str, revision| {
            let profile = profiles.for_agent(&row(hostname, class, revision))?;
            assert_eq!(profile.revision, 4);
            Some((profile.intervals.len(), profile.watch_sets.len()))
        };
        assert_eq!(given("a", "laptop", 3), Some((1, 0)));
        assert_eq!(given("a", "server", 0), Some((0, 1)));
        assert_eq!(given("a", "", 3), Some((0, 1)), "its class cannot be told");
        assert_eq!(given("", "", 0), None, "nothing was heard of it");
        assert_eq!(given("a", "server", 4), None);
        assert_eq!(given("a", "server", 9), None);
        let laptops = Profiles::parse("revision = 1\n[[profile]]\nclasses = [\"laptop\"]").unwrap();
        assert_eq!(laptops.for_agent(&row("a", "server", 0)), None);
        assert_eq!(Profiles::default().for_agent(&row("a", "server", 0)), None);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_place() {
        let wide = format!("[[profile.watch_sets]]\nname = \"a\"\npaths = [{}]", "\"/aaaaaaaaaaaaaaaa\",".repeat(1001));
        for (text, part) in [
            ("revision = 0", "revision is 0"),
            ("", "missing field `revision`"),
            ("revision = 1\n[[profile]]\nclass = \"laptop\"", "unknown field `class`"),
            ("revision = 1\n[[profile]]\nclasses = [\"toaster\"]", "unknown variant `toaster`"),
            ("revision = 1\n[[profile]]\n[[profile]]\nseconds = { fire = 60 }", "profile 2: seconds: no probe"),
            ("revision = 1\n[[profile]]\nseconds = { unspecified = 60 }", "no probe is named"),
            ("revision = 1\n[[profile]]\nseconds = { firewall = 5 }", "profile 1: seconds: firewall is 5"),
            ("revision = 1\n[[profile]]\n[[profile.watch_sets]]\nname = \"A\"\npaths = [\"/\"]", "watch set \"A\""),
            (&format!("revision = 1\n[[profile]]\n{wide}"), "watch set \"a\": it has 1001 paths"),
        ] {
            let error = Profiles::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
