//! When reports of a host count: by which clock, and from when on they add up again. Pure. Views, and the snapshots that a stranger
//! makes again, decide alike.

use std::time::Duration;

use muster_proto::time::Timestamp;

/// How long after a host's reports added up again they can do so once more, by the times at which they were received.
const MEND_INTERVAL: Duration = Duration::from_secs(60);

/// Returns a host's time on the collector's clock, by the skew that was measured, and never after `received`.
pub fn on_collector(host: Timestamp, skew_millis: i64, received: Timestamp) -> Timestamp {
    less_skew(host, skew_millis).min(received)
}

/// Returns a host's time on the collector's clock, by the skew that was measured.
pub fn less_skew(host: Timestamp, skew_millis: i64) -> Timestamp {
    let skew = Duration::from_millis(skew_millis.unsigned_abs());
    if skew_millis >= 0 { host.minus(skew) } else { host.plus(skew) }
}

/// Returns whether a report that fits, received at `received`, makes the reports of a host add up again. `last` is when one did so
/// last. All that is known of the host is judged again each time, so that an agent that lies in every other report must wait.
pub fn mends(last: Option<Timestamp>, received: Timestamp) -> bool {
    last.is_none_or(|last| received.since(last) >= MEND_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds).unwrap()
    }

    #[test]
    fn reports_add_up_again_at_once_and_then_once_a_minute() {
        assert!(mends(None, at(0)));
        for (received, expected) in [(100, false), (159, false), (160, true), (50, false)] {
            assert_eq!(mends(Some(at(100)), at(received)), expected, "{received}");
        }
    }
}
