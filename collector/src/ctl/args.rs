//! Values of arguments, parsed.

use std::{num::NonZeroUsize, time::Duration};

use muster_proto::time::Timestamp;

/// Returns the duration of a text such as `30s`, `15m`, `24h` or `90d`. None is zero, which on the wire means the default.
///
/// # Errors
///
/// A sentence for the person who wrote it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write a number and s, m, h or d, such as 24h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u32 = digits.parse().map_err(|_| wrong())?;
    if count == 0 {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

/// Returns how many items a list has at most.
///
/// # Errors
///
/// A sentence for the person who wrote it.
pub fn limit(text: &str) -> Result<usize, String> {
    let limit: Result<NonZeroUsize, _> = text.parse();
    limit.map(NonZeroUsize::get).map_err(|_| "it must be a number from 1 on; leave it out for all".to_owned())
}

/// Returns the instant of an RFC 3339 text.
///
/// # Errors
///
/// A sentence for the person who wrote it.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|error: &str| error.to_owned())
}

/// Returns whole seconds as the contract carries them.
///
/// # Errors
///
/// A sentence when it is too long.
pub fn wire_seconds(duration: Duration) -> Result<u32, String> {
    u32::try_from(duration.as_secs()).map_err(|_| "the duration is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in ["", "0s", "000d", "h", "1", "1w", "-1h", "+1h", "1.5h", "99999999999d", "1é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_at_least_one() {
        assert_eq!(limit("7"), Ok(7));
        for bad in ["", "0", "-1", "x", "99999999999999999999999"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
