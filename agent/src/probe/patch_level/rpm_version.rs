//! Versions as rpm orders them (rpm-version(7)).

use std::cmp::Ordering;

/// Epoch, version and release of a package.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Evr {
    pub epoch: u64,
    pub version: String,
    pub release: String,
}

impl Evr {
    /// Returns the version of these texts; an epoch that is empty is 0. `None` when the epoch is no number.
    pub fn new(epoch: &str, version: &str, release: &str) -> Option<Self> {
        let epoch = if epoch.is_empty() { 0 } else { epoch.parse().ok()? };
        Some(Self { epoch, version: version.to_owned(), release: release.to_owned() })
    }

    /// Returns the version of `epoch:version-release`.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (version, release) = rest.rsplit_once('-')?;
        Self::new(epoch, version, release)
    }
}

impl Ord for Evr {
    fn cmp(&self, other: &Self) -> Ordering {
        let own = self.epoch.cmp(&other.epoch);
        own.then_with(|| compare(&self.version, &other.version)).then_with(|| compare(&self.release, &other.release))
    }
}

impl PartialOrd for Evr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Evr {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.epoch {
            0 => write!(out, "{}-{}", self.version, self.release),
            epoch => write!(out, "{epoch}:{}-{}", self.version, self.release),
        }
    }
}

/// Returns how two versions or two releases compare: part by part, each of digits alone or of letters alone.
pub(super) fn compare(own: &str, other: &str) -> Ordering {
    let (mut own, mut other) = (own.as_bytes(), other.as_bytes());
    loop {
        (own, other) = (without_separators(own), without_separators(other));
        let (first, second) = (own.first().copied(), other.first().copied());
        // A tilde is before everything, also before the end; a caret is after the end and before everything else.
        let by_mark = match (first, second) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (own, other) = (&own[1..], &other[1..]);
                continue;
            }
            (Some(b'~'), _) => Some(Ordering::Less),
            (_, Some(b'~')) => Some(Ordering::Greater),
            (Some(b'^'), None) => Some(Ordering::Greater),
            (None, Some(b'^')) => Some(Ordering::Less),
            (Some(b'^'), Some(_)) => Some(Ordering::Less),
            (Some(_), Some(b'^')) => Some(Ordering::Greater),
            (None, None) => Some(Ordering::Equal),
            (None, Some(_)) => Some(Ordering::Less),
            (Some(_), None) => Some(Ordering::Greater),
            (Some(first), Some(second)) => match (first.is_ascii_digit(), second.is_ascii_digit()) {
                (true, false) => Some(Ordering::Greater),
                (false, true) => Some(Ordering::Less),
                (true, true) | (false, false) => None,
            },
        };
        if let Some(order) = by_mark {
            return order;
        }
        let (own_part, own_rest) = part(own);
        let (other_part, other_rest) = part(other);
        let order = match own_part[0].is_ascii_digit() {
            true => {
                let (own, other) = (without_zeros(own_part), without_zeros(other_part));
                own.len().cmp(&other.len()).then_with(|| own.cmp(other))
            }
            false => own_part.cmp(other_part),
        };
        if order.is_ne() {
            return order;
        }
        (own, other) = (own_rest, other_rest);
    }
}

fn without_separators(text: &[u8]) -> &[u8] {
    let is_kept = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'^');
    &text[text.iter().position(is_kept).unwrap_or(text.len())..]
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}

/// Returns the digits or the letters that `text` begins with, and the rest.
fn part(text: &[u8]) -> (&[u8], &[u8]) {
    let is_digit = text[0].is_ascii_digit();
    let ends = |byte: &u8| if is_digit { !byte.is_ascii_digit() } else { !byte.is_ascii_alphabetic() };
    text.split_at(text.iter().position(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What rpm 4.18 says of these pairs (`rpm.vercmp` of its Lua).
    const CASES: &[(&str, &str, i8)] = &[
        ("1.0", "1.0", 0),
        ("1.0", "2.0", -1),
        ("2.0.1", "2.0.1a", -1),
        ("5.5p1", "5.5p10", -1),
        ("10xyz", "10.1xyz", -1),
        ("xyz10", "xyz10.1", -1),
        ("xyz.4", "8", -1),
        ("5.5p2", "5.6p1", -1),
        ("6.0.rc1", "6.0", 1),
        ("10b2", "10a1", 1),
        ("1.0aa", "1.0a", 1),
        ("10.0001", "10.1", 0),
        ("10.0001", "10.0039", -1),
        ("4.999.9", "5.0", -1),
        ("20101122", "20101121", 1),
        ("2_0", "2.0", 0),
        ("a", "a_", 0),
        ("+a", "a", 0),
        ("+", "_", 0),
        ("1.0~rc1", "1.0", -1),
        ("1.0~rc1", "1.0~rc2", -1),
        ("1.0~rc1~git123", "1.0~rc1", -1),
        ("1.0^", "1.0", 1),
        ("1.0^git1", "1.0", 1),
        ("1.0^git1", "1.01", -1),
        ("1.0^20160101", "1.0.1", -1),
        ("1.0^20160101^git1", "1.0^20160102", -1),
        ("1.0~rc1^git1", "1.0~rc1", 1),
        ("1.0^git1~pre", "1.0^git1", -1),
        ("0", "00", 0),
        ("1", "01", 0),
        ("~", "^", -1),
        ("1..2", "1.2", 0),
        ("1.a", "1.1", -1),
        ("3.el9", "3.el9_4.1", -1),
        ("1b.fc17", "1b.fc18", -1),
        ("1^", "00b0~", 1),
        ("^0_0", "_", 1),
        ("0_ab", "10__2", -1),
        ("0b", "0_0_2", -1),
        ("b^~", "_.~", 1),
        ("21", "20_ab", 1),
        ("~.a", "00b^", -1),
        ("~", ".", -1),
        ("00b", "~~~_", 1),
        ("a_.a^", "~0.~1", 1),
        ("0.02", "12", -1),
        ("^.0", ".", 1),
        ("ba1", "ba^", 1),
        ("^2", "0", -1),
        ("1", "2", -1),
        ("01", "b~_", 1),
        ("~1b_", "0.b^^", -1),
        ("^0.", "^0202", -1),
        ("10~", "000_", 1),
    ];

    #[test]
    fn versions_compare_as_rpm_compares_them() {
        for (own, other, expected) in CASES {
            let expected = expected.cmp(&0);
            assert_eq!(compare(own, other), expected, "{own} {other}");
            assert_eq!(compare(other, own), expected.reverse(), "{other} {own}");
        }
    }

    #[test]
    fn an_epoch_decides_before_the_version_and_the_version_before_the_release() {
        for (own, other, expected) in [
            ("1:1-1", "2-1", Ordering::Greater),
            ("0:1-1", "1-1", Ordering::Equal),
            ("1-2", "1-1", Ordering::Greater),
            ("1.1-1", "1-9", Ordering::Greater),
            ("1-2.el9_4", "1-2.el9", Ordering::Greater),
        ] {
            assert_eq!(Evr::parse(own).unwrap().cmp(&Evr::parse(other).unwrap()), expected, "{own} {other}");
        }
        assert_eq!((Evr::parse("x:1-1"), Evr::parse("1")), (None, None));
        assert_eq!(Evr::parse("2:1-1").unwrap().to_string(), "2:1-1");
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9a-b.~^-]{0,6}", b in "[0-9a-b.~^-]{0,6}", c in "\\PC{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
