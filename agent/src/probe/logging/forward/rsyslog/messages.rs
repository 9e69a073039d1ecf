//! Selectors of rsyslog.conf(5): which messages, by their facility and level.

/// Facilities in the order of their numbers (RFC 5424); `security` is an old name of `auth`.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// Levels in the order of their numbers, and other names of some.
const LEVELS: [&[&str]; 8] = [
    &["emerg", "panic"],
    &["alert"],
    &["crit"],
    &["err", "error"],
    &["warning", "warn"],
    &["notice"],
    &["info"],
    &["debug"],
];
/// Facilities without which the log is not sent.
pub(super) const NEEDED: [&str; 5] = ["auth", "authpriv", "daemon", "kern", "user"];
/// Levels of them: `info` and what is more severe.
const NEEDED_LEVELS: u8 = 0b0111_1111;

/// Levels of each facility, a bit for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Messages([u8; FACILITIES.len()]);

impl Messages {
    pub(super) const ALL: Self = Self([u8::MAX; FACILITIES.len()]);
    pub(super) const NONE: Self = Self([0; FACILITIES.len()]);

    /// Reads a selector such as `*.info;auth,authpriv.none`, where each part changes what the parts before it chose; `None` where a
    /// name is not known.
    pub(super) fn parse(selector: &str) -> Option<Self> {
        let mut chosen = Self::NONE;
        for part in selector.split(';').filter(|part| !part.is_empty()) {
            let (facilities, level) = part.split_once('.')?;
            let (is_negated, level) = level.strip_prefix('!').map_or((false, level), |level| (true, level));
            let (is_single, level) = level.strip_prefix('=').map_or((false, level), |level| (true, level));
            let (is_negated, levels) = match level.to_ascii_lowercase().as_str() {
                "*" => (is_negated, u8::MAX),
                "none" => (true, u8::MAX),
                name => {
                    let is_named = |names: &&[&str]| names.contains(&name);
                    let number = LEVELS.iter().position(is_named).or_else(|| name.parse().ok().filter(|&n| n < 8))?;
                    (is_negated, if is_single { 1 << number } else { u8::MAX >> (7 - number) })
                }
            };
            for facility in facilities.split(',') {
                let facility = facility.to_ascii_lowercase();
                let facility = if facility == "security" { "auth" } else { &facility };
                let is_meant = |name: &str| facility == "*" || facility == name;
                if facility != "*" && !FACILITIES.contains(&facility) {
                    return None;
                }
                for (_, chosen) in FACILITIES.into_iter().zip(&mut chosen.0).filter(|(name, _)| is_meant(name)) {
                    *chosen = if is_negated { *chosen & !levels } else { *chosen | levels };
                }
            }
        }
        Some(chosen)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] & other.0[n]))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] | other.0[n]))
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] & !other.0[n]))
    }

    /// Returns those whose level compares so with `level`, in any facility.
    pub(super) fn compared(operation: &str, level: u8) -> Option<Self> {
        let is_chosen = |own: u8| match operation {
            "==" => Some(own == level),
            "!=" | "<>" => Some(own != level),
            "<=" => Some(own <= level),
            "<" => Some(own < level),
            ">=" => Some(own >= level),
            ">" => Some(own > level),
            _ => None,
        };
        let mut levels = 0;
        for own in 0..8 {
            levels |= u8::from(is_chosen(own)?) << own;
        }
        Some(Self([levels; FACILITIES.len()]))
    }

    /// Returns whether these are the log, but for what is noise.
    pub(super) fn are_the_log(self) -> bool {
        let is_whole = |(name, levels): (&str, u8)| !NEEDED.contains(&name) || levels & NEEDED_LEVELS == NEEDED_LEVELS;
        FACILITIES.into_iter().zip(self.0).all(is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_chooses_as_in_syslog() {
        let of = |selector: &str, facility: &str| {
            let number = FACILITIES.iter().position(|&name| name == facility).unwrap();
            Messages::parse(selector).unwrap().0[number]
        };
        assert_eq!(of("*.*", "auth"), 0xff);
        assert_eq!(of("*.info", "auth"), 0x7f);
        assert_eq!(of("*.=info", "auth"), 0x40);
        assert_eq!(of("*.*;auth.none", "auth"), 0);
        assert_eq!(of("*.*;security,mail.none", "auth"), 0);
        assert_eq!(of("auth.none;*.emerg", "auth"), 1);
        assert_eq!(of("kern.*;kern.!warn", "kern"), 0b1110_0000);
        assert_eq!(of("kern.*;kern.!=warn", "kern"), 0b1110_1111);
        assert_eq!(of("kern.6", "kern"), 0x7f);
        assert_eq!(of("kern.*", "user"), 0);
        for selector in ["x.*", "kern.x", "kern", "kern.8", "mark.*"] {
            assert_eq!(Messages::parse(selector), None, "{selector}");
        }
    }
}
