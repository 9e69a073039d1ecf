//! The host's clocks, read together, and the boot that they belong to.
//!
//! The wall clock may be set and jumps; `CLOCK_BOOTTIME` counts suspend and `CLOCK_MONOTONIC` does not (clock_gettime(2)).

use std::time::Duration;

use muster_proto::time::{Clock as _, SystemClock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// An instant on the three clocks of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// Wall clock.
    pub wall: Timestamp,
    /// Since boot, suspend included.
    pub boot: Duration,
    /// Since boot, suspend left out.
    pub awake: Duration,
}

impl Moment {
    /// Returns the present instant.
    pub fn now() -> Self {
        Self { wall: SystemClock.now(), boot: read(ClockId::Boottime), awake: read(ClockId::Monotonic) }
    }

    /// Returns how long the host was suspended between `earlier` and `self`, both of one boot.
    pub fn suspended_since(&self, earlier: &Self) -> Duration {
        let suspended = |moment: &Self| moment.boot.saturating_sub(moment.awake);
        suspended(self).saturating_sub(suspended(earlier))
    }

    /// Returns by how many milliseconds the wall clock moved more than the boot clock since `earlier`; negative when it moved less.
    pub fn wall_jump_millis(&self, earlier: &Self) -> i64 {
        let boot = self.boot.saturating_sub(earlier.boot);
        self.wall.millis_after(earlier.wall) - i64::try_from(boot.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Returns the kernel's boot id (random(4)), or zeros where the kernel does not tell it.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; 16];
    match hex::decode_to_slice(text.trim().replace('-', ""), &mut id) {
        Ok(()) => id,
        Err(_) => [0; 16],
    }
}

/// Returns the processor time that this program took so far.
pub fn processor_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Returns the processor time that the calling thread took so far.
pub fn processor_time_of_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall_seconds: i64, boot: u64, awake: u64) -> Moment {
        Moment {
            wall: Timestamp::from_seconds(wall_seconds).unwrap(),
            boot: Duration::from_secs(boot),
            awake: Duration::from_secs(awake),
        }
    }

    #[test]
    fn suspend_is_what_the_boot_clock_gained_on_the_other() {
        let before = moment(1_000, 500, 400);
        assert_eq!(moment(1_060, 560, 430).suspended_since(&before), Duration::from_secs(30));
        assert_eq!(moment(1_060, 560, 460).suspended_since(&before), Duration::ZERO);
    }

    #[test]
    fn a_set_clock_shows_as_a_jump_and_a_suspend_does_not() {
        let before = moment(1_000, 500, 400);
        assert_eq!(moment(1_060, 560, 410).wall_jump_millis(&before), 0);
        assert_eq!(moment(4_660, 560, 460).wall_jump_millis(&before), 3_600_000);
        assert_eq!(moment(460, 560, 460).wall_jump_millis(&before), -600_000);
    }
}
