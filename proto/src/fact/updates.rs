//! Installed software and its updates.

use serde::{Deserialize, Serialize};

use super::{Reading, Text, text_enum};
use crate::time::Timestamp;

text_enum!(
    /// Package manager.
    PackageManager {
        Apt = "apt", Dpkg = "dpkg", Rpm = "rpm", Dnf = "dnf", Zypper = "zypper", Pacman = "pacman",
        Softwareupdate = "softwareupdate", WindowsUpdate = "windows_update",
    }
);

/// What the host's own package manager knows of updates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct PatchLevel {
    pub manager: PackageManager,
    pub pending: Vec<PendingUpdate>,
    pub pending_complete: Reading<bool>,
    pub sources: Vec<UpdateSource>,
    pub security_metadata_time: Reading<Timestamp>,
    pub security_metadata_valid_until_time: Reading<Timestamp>,
    pub running_kernel: Reading<Text>,
    pub newest_kernel: Reading<Text>,
    pub reboot_required: Reading<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required_since_time: Option<Reading<Timestamp>>,
    pub reboot_packages: Vec<Text>,
    pub automatic_updates: AutomaticUpdates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_metadata_verified: Option<Reading<bool>>,
    #[serde(default)]
    pub live_patches: Vec<Text>,
}

/// An update that is offered and not installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct PendingUpdate {
    pub package: Text,
    pub architecture: Text,
    pub installed_version: Text,
    pub candidate_version: Text,
    pub security: bool,
    pub held: bool,
    pub origin: Text,
    pub first_offered_time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_after_time: Option<Reading<Timestamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phased_percent: Option<Reading<u64>>,
}

/// A package repository in use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct UpdateSource {
    pub label: Text,
    pub codename: Text,
    pub suite: Text,
    pub security: bool,
    pub release_time: Reading<Timestamp>,
    pub valid_until_time: Reading<Timestamp>,
    #[serde(default)]
    pub origin: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Reading<bool>>,
}

/// Whether updates are installed without a person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct AutomaticUpdates {
    pub enabled: Reading<bool>,
    pub last_success_time: Reading<Timestamp>,
}

/// Packages that are installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Software {
    pub packages: Vec<Package>,
}

/// An installed package.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Package {
    pub name: Text,
    pub version: Text,
    pub architecture: Text,
    pub manager: PackageManager,
}
