//! Attributes of a file that a watch set compares.

use serde::{Deserialize, Serialize};

/// Attributes of a file, as a set.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Attributes(u16);

impl Attributes {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Kind of entry.
    pub const TYPE: Self = Self(1);
    /// Content of a file, target of a link. Without it no file is read.
    pub const CONTENT: Self = Self(1 << 1);
    /// Size of a file.
    pub const SIZE: Self = Self(1 << 2);
    /// Permission bits.
    pub const MODE: Self = Self(1 << 3);
    /// Owner.
    pub const OWNER: Self = Self(1 << 4);
    /// Group.
    pub const GROUP: Self = Self(1 << 5);
    /// Time of the last content change, of files.
    pub const MODIFIED_TIME: Self = Self(1 << 6);
    /// Time of the last inode change.
    pub const CHANGED_TIME: Self = Self(1 << 7);
    /// Number of the inode.
    pub const INODE: Self = Self(1 << 8);
    /// Number of hard links.
    pub const LINKS: Self = Self(1 << 9);
    /// Extended attributes: capabilities, access control lists, labels and others.
    pub const EXTENDED: Self = Self(1 << 10);
    /// Modified time and size of folders and links too, which follow from what happens in them.
    pub const FOLDERS: Self = Self(1 << 11);

    /// Names of all of them.
    const NAMES: [(Self, &'static str); 12] = [
        (Self::TYPE, "type"),
        (Self::CONTENT, "content"),
        (Self::SIZE, "size"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::GROUP, "group"),
        (Self::MODIFIED_TIME, "modified_time"),
        (Self::CHANGED_TIME, "changed_time"),
        (Self::INODE, "inode"),
        (Self::LINKS, "links"),
        (Self::EXTENDED, "extended_attributes"),
        (Self::FOLDERS, "folders"),
    ];

    /// Returns every attribute: what AIDE's strictest groups compare.
    pub fn all() -> Self {
        Self::NAMES.iter().fold(Self(0), |all, (one, _)| all.with(*one))
    }

    /// Returns whether all of `other` are in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns it without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Default for Attributes {
    fn default() -> Self {
        let volatile = Self::CHANGED_TIME.with(Self::INODE).with(Self::LINKS).with(Self::FOLDERS);
        Self::all().without(volatile)
    }
}

impl TryFrom<Vec<String>> for Attributes {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        names.iter().try_fold(Self(0), |all, name| {
            let known = Self::NAMES.iter().find(|(_, known)| known == name);
            known.map(|(one, _)| all.with(*one)).ok_or_else(|| format!("no attribute is named {name:?}"))
        })
    }
}

impl From<Attributes> for Vec<String> {
    fn from(attributes: Attributes) -> Self {
        let held = Attributes::NAMES.iter().filter(|(one, _)| attributes.has(*one));
        held.map(|(_, name)| (*name).to_owned()).collect()
    }
}
