//! The table of subjects: everything that follows from what a fact is about, from one row for each.

use serde::{Deserialize, Serialize};

use super::{
    Accounts, Agent, Backup, Boot, Capacity, Clock, DiskEncryption, Error, FileIntegrity, Firewall, Listeners, Logging,
    PatchLevel, Reading, RemoteAccess, RemovableMedia, ScreenLock, Sensors, Software, System, Unknown, wire::Wire,
};
use crate::{report::Probe, v1};

/// A row: the subject, which is the name of its state and of its variant on the wire, its name, the number of its field in the
/// contract's `Fact`, and the probe whose looks keep it fresh. Rows are in order of name.
macro_rules! subjects {
    ($($subject:ident $name:literal $number:literal $probe:ident),* $(,)?) => {
        /// What a fact is about. A report carries at most one fact of each subject.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[allow(missing_docs, reason = "each is the name of its fact")]
        pub enum Subject { $(#[serde(rename = $name)] $subject),* }

        /// One subject's whole state.
        #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
        #[serde(tag = "subject", content = "state")]
        #[allow(missing_docs, reason = "each is the name of its state")]
        pub enum Fact { $(#[serde(rename = $name)] $subject(Reading<$subject>)),* }

        impl Subject {
            /// Every subject, in order of name.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$subject),*];

            /// Returns its name, such as `disk_encryption`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$subject => $name),* }
            }

            /// Returns the number of its field in the contract's `Fact`.
            pub fn number(self) -> u32 {
                match self { $(Self::$subject => $number),* }
            }

            /// Returns the probe whose looks keep the subject fresh.
            pub fn probe(self) -> Probe {
                match self { $(Self::$subject => Probe::$probe),* }
            }
        }

        impl Fact {
            /// Returns the fact of `subject` that could not be told.
            pub fn unknown(subject: Subject, unknown: Unknown) -> Self {
                match subject { $(Subject::$subject => Self::$subject(Reading::Unknown { unknown })),* }
            }

            /// Returns what the fact is about.
            pub fn subject(&self) -> Subject {
                match self { $(Self::$subject(_) => Subject::$subject),* }
            }

            /// Returns the fact of a message, every field checked.
            pub(super) fn of_message(message: v1::fact::Fact) -> Result<Self, Error> {
                Ok(match message {
                    $(v1::fact::Fact::$subject(state) => Self::$subject(Reading::decode(state, $name)?),)*
                })
            }

            /// Returns the message of the fact.
            pub(super) fn to_message(&self) -> v1::fact::Fact {
                match self { $(Self::$subject(state) => v1::fact::Fact::$subject(state.encode())),* }
            }
        }
    };
}

subjects! {
    Accounts "accounts" 9 Accounts,
    Agent "agent" 8 System,
    Backup "backup" 18 Backup,
    Boot "boot" 16 Boot,
    Capacity "capacity" 17 Capacity,
    Clock "clock" 14 Clock,
    DiskEncryption "disk_encryption" 2 DiskEncryption,
    FileIntegrity "file_integrity" 7 FileIntegrity,
    Firewall "firewall" 5 Firewall,
    Listeners "listeners" 6 System,
    Logging "logging" 15 Logging,
    PatchLevel "patch_level" 3 PatchLevel,
    RemoteAccess "remote_access" 10 RemoteAccess,
    RemovableMedia "removable_media" 12 RemovableMedia,
    ScreenLock "screen_lock" 11 ScreenLock,
    Sensors "sensors" 13 Sensors,
    Software "software" 4 PatchLevel,
    System "system" 1 System,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Cause;

    #[test]
    fn rows_are_in_order_of_name_and_have_the_numbers_of_the_contract() {
        assert!(Subject::ALL.is_sorted_by_key(|subject| subject.as_str()));
        for subject in Subject::ALL {
            let bytes = Fact::unknown(subject, Unknown::new(Cause::Absent, "")).encode();
            let (number, _) = prost::encoding::decode_key(&mut bytes.as_slice()).unwrap();
            assert_eq!(number, subject.number(), "{subject:?}");
        }
    }
}
