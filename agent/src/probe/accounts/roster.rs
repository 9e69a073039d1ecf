//! Who has which user id, and who is a member of which group, by passwd(5) and group(5) together.
//!
//! The kernel knows numbers alone: accounts of one user id are one user, and lines of one group id are one group.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    groups,
    passwd::{Entry, Group},
    sudoers::Superusers,
};

/// Accounts and groups by their numbers, and the numbers by their names. Two lines may have one name, or one number.
pub struct Roster<'a> {
    accounts: BTreeMap<u32, BTreeSet<&'a str>>,
    uids: BTreeMap<&'a str, BTreeSet<u32>>,
    uids_ignoring_case: BTreeMap<String, BTreeSet<u32>>,
    groups: &'a [Group],
    gids_ignoring_case: BTreeMap<String, BTreeSet<u32>>,
    members: BTreeMap<u32, BTreeSet<&'a str>>,
}

impl<'a> Roster<'a> {
    /// Returns the roster of the lines of both files.
    pub fn new(entries: &'a [Entry], groups: &'a [Group]) -> Self {
        let mut roster = Self {
            accounts: BTreeMap::new(),
            uids: BTreeMap::new(),
            uids_ignoring_case: BTreeMap::new(),
            groups,
            gids_ignoring_case: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        for entry in entries {
            roster.accounts.entry(entry.uid).or_default().insert(&entry.name);
            roster.uids.entry(&entry.name).or_default().insert(entry.uid);
            roster.uids_ignoring_case.entry(entry.name.to_lowercase()).or_default().insert(entry.uid);
            roster.members.entry(entry.gid).or_default().insert(&entry.name);
        }
        for group in groups {
            roster.gids_ignoring_case.entry(group.name.to_lowercase()).or_default().insert(group.gid);
            roster.members.entry(group.gid).or_default().extend(group.members.iter().map(String::as_str));
        }
        roster
    }

    /// Returns the accounts of user ids.
    pub fn of_uids(&self, uids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
        uids.into_iter().filter_map(|uid| self.accounts.get(&uid)).flatten().map(|&name| name.to_owned()).collect()
    }

    /// Returns the accounts that sudo takes for the one of a name: names of other letter case (`case_insensitive_user` of
    /// sudoers(5), which is on), and all of its user id.
    pub fn called(&self, name: &str) -> BTreeSet<String> {
        self.of_uids(self.uids_ignoring_case.get(&name.to_lowercase()).into_iter().flatten().copied())
    }

    /// Returns the ids of the groups of a name.
    pub fn gids(&self, name: &str) -> BTreeSet<u32> {
        self.groups.iter().filter(|group| group.name == name).map(|group| group.gid).collect()
    }

    /// Returns the ids of the groups that sudo takes for the one of a name (`case_insensitive_group` of sudoers(5), which is on).
    pub fn gids_ignoring_case(&self, name: &str) -> BTreeSet<u32> {
        self.gids_ignoring_case.get(&name.to_lowercase()).cloned().unwrap_or_default()
    }

    /// Returns the members of groups: those that a line of group(5) lists, those whose own group it is, and who has the user id of
    /// one of these.
    pub fn members(&self, gids: &BTreeSet<u32>) -> BTreeSet<String> {
        let listed: BTreeSet<&str> = gids.iter().filter_map(|gid| self.members.get(gid)).flatten().copied().collect();
        let uids: BTreeSet<u32> = listed.iter().filter_map(|name| self.uids.get(name)).flatten().copied().collect();
        let mut members = self.of_uids(uids);
        members.extend(listed.into_iter().map(str::to_owned));
        members
    }

    /// Returns by what names a sudo rule may mean the superuser.
    pub fn superusers(&self) -> Superusers {
        let mut superusers = Superusers::default();
        let roots = self.accounts.get(&0).cloned().unwrap_or_default();
        superusers.names.extend(roots.iter().map(|name| name.to_lowercase()));
        let of_root = self.members.iter().filter(|(_, members)| !members.is_disjoint(&roots));
        superusers.gids.extend(of_root.map(|(gid, _)| *gid));
        let names = self.groups.iter().filter(|group| superusers.gids.contains(&group.gid));
        let names: Vec<String> = names.map(|group| group.name.to_lowercase()).collect();
        superusers.groups.extend(names);
        for name in groups::KNOWN.iter().map(|known| known.name).chain(groups::OF_FILES) {
            superusers.powerful_gids.extend(self.gids_ignoring_case(name));
            superusers.powerful_groups.insert(name.to_owned());
        }
        superusers
    }
}
