//! The host's clock: what the kernel says of it, and which program keeps it.

use std::path::Path;

use muster_proto::{
    fact::{Cause, Clock, ClockService, ClockServiceName, Fact, Reading, Unknown},
    report,
    time::Timestamp,
};

use super::{
    Look, Probe,
    processes::{self, Process},
};
use crate::host::{self, Host, KernelClock};

/// Programs that set the clock, in order of name: where they are, and systemd units that run them.
const KNOWN: &[(ClockServiceName, &[&str], &[&str])] = &[
    (ClockServiceName::Chrony, &["/usr/sbin/chronyd"], &["chrony.service", "chronyd.service"]),
    (
        ClockServiceName::Ntpd,
        &["/usr/sbin/ntpd"],
        &["ntp.service", "ntpd.service", "ntpsec.service", "openntpd.service"],
    ),
    (ClockServiceName::NtpdRs, &["/usr/bin/ntp-daemon"], &["ntpd-rs.service"]),
    (ClockServiceName::Ptp4l, &["/usr/sbin/ptp4l"], &["ptp4l.service"]),
    (
        ClockServiceName::SystemdTimesyncd,
        &["/usr/lib/systemd/systemd-timesyncd", "/lib/systemd/systemd-timesyncd"],
        &["systemd-timesyncd.service"],
    ),
];
/// Touched by systemd-timesyncd each time that it set the clock (systemd-timesyncd.service(8)).
const TIMESYNCD_STAMP: &str = "/run/systemd/timesync/synchronized";
/// Steps in which errors are told, in milliseconds. The kernel's own bound, `NTP_PHASE_LIMIT`, is 16 seconds.
const STEPS: [u64; 4] = [100, 1_000, 5_000, 16_000];
/// The least step of the bound, which the kernel counts up by 500 parts in a million: 1.8 seconds in an hour.
const LEAST_BOUND: u64 = 5_000;
/// The error that chronyd sets while it has no source, in microseconds.
const NO_SOURCE: i64 = 16_000_000;
const DAY_SECONDS: i64 = 86_400;

/// The probe of `clock`.
pub struct ClockProbe;

impl Probe for ClockProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Clock
    }

    fn name(&self) -> &'static str {
        "clock"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::Clock(Reading::Known(clock(look.host, look.now)))]
    }
}

fn clock(host: &dyn Host, now: Timestamp) -> Clock {
    let kernel = host::reading("adjtimex", host.clock());
    let processes = processes::look(host);
    let (services, services_complete) = services(host, &processes);
    Clock {
        synchronized: synchronized(&kernel, &services),
        offset_millis: kernel.clone().map(|kernel| step(kernel.offset_nanos.unsigned_abs().div_ceil(1_000_000))),
        max_error_millis: kernel.clone().map(|kernel| step(millis(kernel.max_error_micros)).max(LEAST_BOUND)),
        estimated_error_millis: kernel.map(|kernel| step(millis(kernel.estimated_error_micros))),
        last_sync_time: super::past(last_sync(host, &services, &services_complete), now).map(day),
        services,
        services_complete,
    }
}

/// Returns whether the kernel says that its clock is synchronised.
///
/// chronyd lets it say so with `rtcsync` alone; without it, it keeps the clock and leaves the kernel's word at "not" (chrony.conf(5)).
/// The error tells it from a chronyd without a source, which sets it to the bound. It may also be of one that has lost its source
/// hours ago: it cannot be told.
fn synchronized(kernel: &Reading<KernelClock>, services: &[ClockService]) -> Reading<bool> {
    let has_chrony = services
        .iter()
        .any(|service| service.name == ClockServiceName::Chrony && service.running == Reading::Known(true));
    match kernel {
        Reading::Known(kernel) if !kernel.synchronized && has_chrony && kernel.max_error_micros < NO_SOURCE => {
            let detail =
                "the kernel does not say that its clock is synchronised, which chronyd lets it say with rtcsync alone";
            Reading::unknown(Cause::Undecidable, detail)
        }
        kernel => kernel.clone().map(|kernel| kernel.synchronized),
    }
}

fn millis(micros: i64) -> u64 {
    micros.unsigned_abs().div_ceil(1_000)
}

/// Returns the least step that `millis` does not exceed.
fn step(millis: u64) -> u64 {
    STEPS.into_iter().find(|&step| millis <= step).unwrap_or(STEPS[STEPS.len() - 1])
}

/// Returns the known programs that run or are there, and whether each could be looked for.
fn services(host: &dyn Host, processes: &Result<Vec<Process>, Unknown>) -> (Vec<ClockService>, Reading<bool>) {
    let mut services = Vec::new();
    let mut complete = match processes {
        Ok(_) => Reading::Known(true),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (name, programs, units) in KNOWN {
        let running = processes::running(host, processes, &owned(programs), &owned(units)).0;
        let is_there = processes::is_installed(host, programs).unwrap_or_else(|unknown| {
            complete = Reading::Unknown { unknown };
            false
        });
        if is_there || running == Reading::Known(true) {
            services.push(ClockService { name: *name, running });
        }
    }
    (services, complete)
}

fn last_sync(host: &dyn Host, services: &[ClockService], complete: &Reading<bool>) -> Reading<Timestamp> {
    let Some(service) = services.iter().find(|service| service.running == Reading::Known(true)) else {
        // Where one may run unseen, that none was seen says nothing.
        let mut looks = std::iter::once(complete).chain(services.iter().map(|service| &service.running));
        return match looks.find_map(|reading| match reading {
            Reading::Unknown { unknown } => Some(unknown.clone()),
            Reading::Known(_) => None,
        }) {
            Some(unknown) => Reading::Unknown { unknown },
            None => Reading::unknown(Cause::Absent, "no program that sets the clock was seen to run"),
        };
    };
    match service.name {
        ClockServiceName::SystemdTimesyncd => match host.metadata(Path::new(TIMESYNCD_STAMP)) {
            Ok(metadata) => metadata.modified_time(),
            Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {TIMESYNCD_STAMP}"), &error) },
        },
        name @ (ClockServiceName::Chrony
        | ClockServiceName::Ntpd
        | ClockServiceName::NtpdRs
        | ClockServiceName::Ptp4l) => {
            Reading::unknown(Cause::Unsupported, format!("{} tells it over its own socket alone", name.as_str()))
        }
    }
}

/// Returns the begin of the day: a stamp of every half hour would make a report of every look.
fn day(time: Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.seconds() / DAY_SECONDS * DAY_SECONDS).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_the_least_step_that_it_does_not_exceed() {
        for (millis, expected) in
            [(0, 100), (100, 100), (101, 1_000), (1_001, 5_000), (5_001, 16_000), (u64::MAX, 16_000)]
        {
            assert_eq!(step(millis), expected, "{millis}");
        }
        assert_eq!((millis(0), millis(1), millis(-1_001), millis(i64::MIN)), (0, 1, 2, 9_223_372_036_854_776));
    }

    #[test]
    fn chronyd_without_rtcsync_leaves_open_whether_the_clock_is_synchronised() {
        let running = |name| ClockService { name, running: Reading::Known(true) };
        let chrony = [running(ClockServiceName::Chrony)];
        let stopped = [ClockService { name: ClockServiceName::Chrony, running: Reading::Known(false) }];
        let ntpd = [running(ClockServiceName::Ntpd)];
        for (said, max_error_micros, services, expected) in [
            (false, 21_950, &chrony[..], None),
            (false, NO_SOURCE, &chrony, Some(false)),
            (true, 21_950, &chrony, Some(true)),
            (false, 21_950, &stopped, Some(false)),
            (false, 21_950, &ntpd, Some(false)),
            (false, 21_950, &[], Some(false)),
        ] {
            let kernel =
                KernelClock { synchronized: said, offset_nanos: 0, max_error_micros, estimated_error_micros: 0 };
            let found = synchronized(&Reading::Known(kernel), services);
            assert_eq!(found.known().copied(), expected, "{said} {max_error_micros} {services:?}");
        }
    }

    #[test]
    fn a_stamp_is_cut_to_its_day() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(day(time("2026-11-26T13:51:14.5Z")), time("2026-11-26T00:00:00Z"));
        assert_eq!(day(Timestamp::EPOCH), Timestamp::EPOCH);
    }

    #[test]
    fn programs_are_in_order_of_name() {
        assert!(KNOWN.is_sorted_by_key(|(name, ..)| name.as_str()));
    }
}
