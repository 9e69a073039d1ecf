//! Which vendors zypper takes for one: it replaces a package by another vendor's only where it is told to.

use std::path::Path;

use muster_proto::fact::Unknown;

use super::{
    ini,
    repositories::{listed_text, main, names},
};
use crate::host::{FILE_BYTES, Host};

/// Vendors that are one, in a file each (`vendors` of its section `main`).
pub(super) const FOLDER: &str = "/etc/zypp/vendors.d";

/// What a host's settings say of vendors.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Vendors {
    /// Whether all are one (zypp.conf(5), `solver.allowVendorChange`).
    is_open: bool,
    /// Starts of the names of vendors that are one, in lower case.
    classes: Vec<Vec<String>>,
}

impl Vendors {
    /// Reads them; `settings` are zypper's for all repositories.
    pub fn read(host: &dyn Host, settings: &ini::Section) -> Result<Self, Unknown> {
        let is_set = settings.value("solver.allowVendorChange").is_some_and(|value| !value.is_empty());
        let is_open = is_set && settings.switch("solver.allowVendorChange") != Some(false);
        let mut classes = Vec::new();
        for name in names(host, FOLDER, "")? {
            let path = Path::new(FOLDER).join(name);
            let main = main(&listed_text(&path, host.read(&path, FILE_BYTES))?);
            let vendors = main.value("vendors").unwrap_or_default().split(',');
            let vendors = vendors.map(|vendor| vendor.trim().to_ascii_lowercase()).filter(|vendor| !vendor.is_empty());
            classes.push(vendors.collect());
        }
        Ok(Self { is_open, classes })
    }

    /// Returns whether two vendors are one.
    pub fn are_one(&self, own: &str, other: &str) -> bool {
        let is_of = |class: &[String], vendor: &str| {
            let vendor = vendor.to_ascii_lowercase();
            class.iter().any(|start| vendor.starts_with(start.as_str()))
        };
        let is_class = |class: &Vec<String>| is_of(class, own) && is_of(class, other);
        let is_suse = |vendor: &str| first_word(vendor) == "suse";
        self.is_open
            || own.eq_ignore_ascii_case(other)
            || is_suse(own) && is_suse(other)
            || self.classes.iter().any(is_class)
    }

    /// Returns whether two vendors may be one. Older libraries of zypper take openSUSE and SUSE for one by themselves.
    pub fn may_be_one(&self, own: &str, other: &str) -> bool {
        let is_suse = |vendor: &str| matches!(first_word(vendor).as_str(), "suse" | "opensuse");
        self.are_one(own, other) || is_suse(own) && is_suse(other)
    }
}

/// Returns what tells SUSE from others: zypper takes `SUSE LLC <https://www.suse.com/>` and `SUSE Linux GmbH` for one by itself, and no
/// others whose names differ.
fn first_word(vendor: &str) -> String {
    vendor.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::Cause;

    use super::*;
    use crate::{
        host::recorded::Failure,
        probe::patch_level::repositories::{ZYPPER_SETTINGS, tests::machine},
    };

    #[test]
    fn vendors_are_one_by_their_name_or_where_the_settings_say_so() {
        let (suse, gmbh) = ("SUSE LLC <https://www.suse.com/>", "SUSE Linux GmbH");
        let (opensuse, packman) = ("openSUSE", "http://packman.links2linux.de");
        let class = format!("{FOLDER}/00-openSUSE.conf");
        let both = "[main]\nvendors = openSUSE,SUSE LLC\n";
        let open = "[main]\nsolver.allowVendorChange = true\n";
        for (files, own, other, are_one, may_be_one) in [
            (vec![], suse, gmbh, true, true),
            (vec![], suse, opensuse, false, true),
            (vec![], suse, packman, false, false),
            (vec![], packman, "", false, false),
            (vec![], "Microsoft Corporation", "Microsoft", false, false),
            (vec![], "Acme", "ACME", true, true),
            (vec![(&*class, both)], suse, opensuse, true, true),
            (vec![(&*class, both)], suse, packman, false, false),
            (vec![(&*class, "[main]\nvendors = SUSE, http://packman\n")], suse, packman, true, true),
            (vec![(ZYPPER_SETTINGS[1], open)], suse, packman, true, true),
            (vec![(ZYPPER_SETTINGS[1], "[main]\nsolver.allowVendorChange = false\n")], suse, packman, false, false),
        ] {
            let (_case, host) = machine(&files);
            let settings = files.iter().find(|(path, _)| *path == ZYPPER_SETTINGS[1]).map(|(_, text)| main(text));
            let vendors = Vendors::read(&host, &settings.unwrap_or_default()).unwrap();
            assert_eq!(vendors.are_one(own, other), are_one, "{files:?} {own} {other}");
            assert_eq!(vendors.may_be_one(other, own), may_be_one, "{files:?} {own} {other}");
        }
        let (_case, mut host) = machine(&[]);
        let forbidden = Failure::of(&std::io::Error::from_raw_os_error(13));
        host.index_mut().errors.insert(format!("list {FOLDER}"), forbidden);
        assert_eq!(Vendors::read(&host, &ini::Section::default()).unwrap_err().cause, Cause::Forbidden);
    }
}
