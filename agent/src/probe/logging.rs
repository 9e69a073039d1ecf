//! Whether the host keeps a record of what happens on it, and sends it away.

mod audit;
mod forward;
mod journal;
mod units;

use muster_proto::{
    fact::{Fact, Logging, Reading},
    report,
    time::Timestamp,
};

use super::{Look, Probe, processes};

const DAY_SECONDS: i64 = 86_400;

/// The probe of `logging`.
pub struct LoggingProbe;

impl Probe for LoggingProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Logging
    }

    fn name(&self) -> &'static str {
        "logging"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let host = look.host;
        let processes = processes::look(host);
        let (forwarders, forwarders_complete) = forward::look(host, &processes, look.now);
        let journal_storage = journal::storage(host, &processes);
        vec![Fact::Logging(Reading::Known(Logging {
            audit: audit::look(host),
            kept_since_time: super::past(journal::kept_since(host, look.now), look.now).map(day),
            journal_storage,
            forwarders,
            forwarders_complete,
        }))]
    }
}

/// Returns the begin of the day: as old files are removed, the time would move with each look.
fn day(time: Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.seconds() / DAY_SECONDS * DAY_SECONDS).unwrap_or(time)
}
