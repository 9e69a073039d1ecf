//! What a profile of the collector may ask of the agent, and what is in force by it. Pure.

use std::time::Duration;

use muster_proto::{report::Probe, v1};

use crate::{
    config::{Config, Interval},
    fim::{sets::Sets, watch_set},
    spool,
};

/// Bounds of an interval, as the contract states them.
const SECONDS: std::ops::RangeInclusive<u32> = 10..=86_400;

/// Returns the interval of each probe: that of the profile, or the configured one of a probe that the profile does not
/// name.
pub(super) fn intervals_in_force(config: &Config, profile: &spool::Profile) -> Vec<(Probe, Duration)> {
    let sent = |probe: Probe| {
        let (_, seconds) = profile.interval_seconds.iter().find(|(number, _)| *number == i32::from(probe))?;
        Some(Interval::new(Duration::from_secs(u64::from(*seconds)))?.duration())
    };
    config.intervals.by_probe().into_iter().map(|(probe, own)| (probe, sent(probe).unwrap_or(own))).collect()
}

/// Returns the profile as it is kept, or why it is refused.
pub(super) fn taken(profile: &v1::Profile) -> Result<spool::Profile, String> {
    check_profile(profile)?;
    let watch_sets = watch_set::from_wire(&profile.watch_sets).map_err(|error| error.to_string())?;
    Sets::new(&watch_sets).map_err(|error| error.to_string())?;
    Ok(spool::Profile {
        revision: profile.revision,
        interval_seconds: profile.intervals.iter().map(|interval| (interval.probe, interval.seconds)).collect(),
        watched_paths: profile.watched_paths.clone(),
        watch_sets,
    })
}

fn check_profile(profile: &v1::Profile) -> Result<(), &'static str> {
    for interval in &profile.intervals {
        if !matches!(Probe::try_from(interval.probe), Ok(probe) if probe != Probe::Unspecified) {
            return Err("it names a probe that this version does not know");
        }
        if !SECONDS.contains(&interval.seconds) {
            return Err("an interval is not 10 to 86400 seconds");
        }
    }
    if profile.watched_paths.len() > 1_000 {
        return Err("it has more than 1000 watched paths");
    }
    let is_plain = |path: &String| path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if !profile.watched_paths.iter().all(|path| is_plain(path) && path.len() <= 4_096) {
        return Err("a watched path is not absolute, or goes up by '..'");
    }
    if !profile.watched_paths.is_empty() && !profile.watch_sets.is_empty() {
        return Err("it has both watched paths and watch sets");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_a_profile_names_no_more_looks_as_configured() {
        let config = Config::default();
        let firewall = |seconds: Option<u32>| {
            let interval_seconds = seconds.map(|seconds| (Probe::Firewall.into(), seconds)).into_iter().collect();
            let profile = spool::Profile { interval_seconds, ..spool::Profile::default() };
            let intervals = intervals_in_force(&config, &profile);
            assert_eq!(intervals.len(), muster_proto::report::PROBES.len());
            intervals.into_iter().find(|(probe, _)| *probe == Probe::Firewall).unwrap().1
        };
        assert_eq!(firewall(Some(600)), Duration::from_secs(600));
        assert_eq!(firewall(None), config.intervals.firewall.duration());
        assert_eq!(firewall(Some(5)), config.intervals.firewall.duration(), "outside the bounds");
    }

    #[test]
    fn a_profile_with_a_path_that_goes_up_is_refused() {
        let check = |path: &str| {
            let profile = v1::Profile { revision: 1, watched_paths: vec![path.to_owned()], ..v1::Profile::default() };
            taken(&profile).map(|profile| profile.watched_paths)
        };
        for path in ["/etc/..", "/etc/../root", "/..", "etc", "", "../x"] {
            assert!(check(path).is_err(), "{path}");
        }
        for path in ["/etc", "/etc/..hidden", "/etc/a..b/c"] {
            assert_eq!(check(path), Ok(vec![path.to_owned()]), "{path}");
        }
    }

    #[test]
    fn a_profile_is_taken_with_its_watch_sets_or_refused_with_the_name_of_the_wrong_one() {
        let set = |name: &str, exclude: &str| v1::WatchSetDefinition {
            name: name.to_owned(),
            paths: vec!["/etc".to_owned()],
            exclude: vec![exclude.to_owned()],
            severity: "high".to_owned(),
            ..v1::WatchSetDefinition::default()
        };
        let profile = |watch_sets| taken(&v1::Profile { revision: 1, watch_sets, ..v1::Profile::default() });
        let kept = profile(vec![set("config", "etc/mtab"), set("other", "etc/*.d")]).unwrap();
        assert!(kept.watch_sets.iter().map(|set| set.name.as_str()).eq(["config", "other"]));
        assert_eq!(kept.sets(), kept.watch_sets);
        for (sets, part) in [
            (vec![set("config", "/etc/mtab")], "watch set \"config\": "),
            (vec![set("config", "etc")], "watch set \"config\": its own patterns leave nothing"),
            (vec![set("config", "a"), set("config", "b")], "two watch sets are named \"config\""),
        ] {
            let reason = profile(sets).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
        let both = v1::Profile {
            revision: 1,
            watched_paths: vec!["/etc".to_owned()],
            watch_sets: vec![set("config", "a")],
            ..v1::Profile::default()
        };
        assert!(taken(&both).is_err());
    }
}
