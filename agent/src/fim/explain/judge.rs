//! Decides which differences the evidence explains. Pure: it asks nothing of the host.

use std::time::Duration;

use muster_proto::fact::{ChangeKind, Explanation, ExtendedAttribute, FileChange, FileState, FileType, Text};
use sha2::{Digest as _, Sha256};

use super::{
    Asked, Changes,
    evidence::{Content, Evidence, Holds, Record, Rights, Whole},
    generated,
};

/// What a database tells no finer than.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Set-user-id and set-group-id.
const RAISES_RIGHTS: u32 = 0o6000;
/// Write permission of others than the owner.
const OPEN_TO_OTHERS: u32 = 0o022;
/// Write permission of everybody.
pub(super) const OPEN_TO_ALL: u32 = 0o002;
/// Extended attributes that the kernel adds by itself: a label, and digests and signatures of the content.
const LABELS: &[&str] = &["security.evm", "security.ima", "security.selinux"];
const CAPABILITY: &str = "security.capability";
/// Ends of names under which package managers leave the new version of a configuration file that was changed by hand.
const AS_SHIPPED: &[&str] = &[".dpkg-dist", ".dpkg-new", ".pacnew", ".rpmnew"];
/// Ends of names under which they keep the former content of one.
const AS_BEFORE: &[&str] = &[".dpkg-old", ".pacsave", ".rpmsave"];
/// What explains a folder or a link: a package lists its path.
const PATH: &str = "path";
/// What explains a deletion: no package lists the path any more.
const NOT_LISTED: &str = "not listed";
/// What explains a file that holds what another held before a package changed that.
const FORMER_CONTENT: &str = "former content";

/// Which content a name stands for that a package manager made from another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Beside {
    AsShipped,
    AsBefore,
}

/// Returns the path of the configuration file for which a package manager made the one at `path`.
pub(super) fn beside(path: &[u8]) -> Option<(&[u8], Beside)> {
    let strip = |ends: &[&str]| ends.iter().find_map(|end| path.strip_suffix(end.as_bytes()));
    let shipped = strip(AS_SHIPPED).map(|path| (path, Beside::AsShipped));
    shipped.or_else(|| strip(AS_BEFORE).map(|path| (path, Beside::AsBefore)))
}

/// Sets the explanations of those of `changes` that `evidence` explains.
pub(super) fn explain(changes: &mut Changes<'_>, evidence: &Evidence) {
    for (path, asked) in changes.iter_mut().filter(|(_, asked)| asked.is_open()) {
        // A damaged database may name a package without a version; that is no explanation.
        let by_packages =
            by_packages(path, asked, evidence).filter(|it| !it.package.is_empty() && !it.version.is_empty());
        asked.change.explanation = by_packages.or_else(|| generated::explanation(path, asked, evidence));
    }
    let kept: Vec<(Vec<u8>, Explanation)> = changes.keys().filter_map(|path| keeps_former(path, changes)).collect();
    for (path, explanation) in kept {
        if let Some(asked) = changes.get_mut(path.as_slice()) {
            asked.change.explanation = Some(explanation);
        }
    }
}

fn by_packages(path: &[u8], asked: &Asked<'_>, evidence: &Evidence) -> Option<Explanation> {
    let Some(after) = &asked.change.after else { return deleted(path, evidence) };
    let mut records = evidence.records(path).iter();
    let own = records.find_map(|record| by_record(path, asked, record, evidence));
    own.or_else(|| match beside(path) {
        // No configuration file raises rights, and a copy of a program that does is one more way to them.
        Some((shipped, Beside::AsShipped)) if asked.change.kind == ChangeKind::Created && !raises_rights(after) => {
            let mut records = evidence.records(shipped).iter().filter(|record| record.holds != Holds::Path);
            records.find_map(|record| by_record(path, asked, record, evidence))
        }
        _ => None,
    })
}

/// What a package lists is not gone because of a package.
fn deleted(path: &[u8], evidence: &Evidence) -> Option<Explanation> {
    let former = evidence.former.get(path)?;
    evidence.records(path).is_empty().then(|| Explanation {
        source: former.source,
        package: former.name.clone(),
        version: former.version.clone(),
        basis: Text::new(NOT_LISTED),
    })
}

fn by_record(path: &[u8], asked: &Asked<'_>, record: &Record, evidence: &Evidence) -> Option<Explanation> {
    let change = &*asked.change;
    let after = change.after.as_ref()?;
    let basis = match (&record.holds, after.r#type) {
        (Holds::Path, FileType::Folder) => is_safe_new_folder(change, after) && asked.is_within(record.package.time),
        (Holds::Path, FileType::Link) => {
            let is_known = |target: &Vec<u8>| !evidence.records(target).is_empty() || is_masked(path, target);
            let is_listed = evidence.targets.get(path).is_some_and(is_known);
            is_listed && after.uid == 0 && change.kind != ChangeKind::Metadata && asked.is_within(record.package.time)
        }
        (Holds::Path | Holds::Unknown, _) => false,
        (Holds::Md5(md5), _) => is_as_installed(path, change, md5, evidence),
        // As it was shipped it may be weaker than as it was: that is a package's doing only while packages are changed.
        (Holds::Configuration(md5), _) => {
            let is_written = || evidence.times.iter().any(|time| asked.is_within(Some(*time)));
            is_as_installed(path, change, md5, evidence) && is_written()
        }
        (Holds::Whole(whole), _) => is_whole(after, whole),
    }
    .then(|| basis(&record.holds))?;
    Some(Explanation {
        source: record.package.source,
        package: record.package.name.clone(),
        version: record.package.version.clone(),
        basis: Text::new(basis),
    })
}

/// Returns whether a link is that of a unit which its package masks, as Debian's sudo does with `sudo.service` (systemd.unit(5)).
fn is_masked(path: &[u8], target: &[u8]) -> bool {
    let path = path.strip_prefix(b"/usr").unwrap_or(path);
    path.starts_with(b"/lib/systemd/system/") && target == b"/dev/null"
}

fn basis(holds: &Holds) -> &'static str {
    match holds {
        Holds::Path | Holds::Unknown => PATH,
        Holds::Md5(_) | Holds::Configuration(_) => "md5",
        Holds::Whole(whole) => match whole.content {
            Content::Md5(_) => "md5",
            Content::Sha256(_) => "sha256",
            Content::None | Content::Target(_) => "metadata",
        },
    }
}

fn is_safe_new_folder(change: &FileChange, after: &FileState) -> bool {
    let is_open = after.mode & (RAISES_RIGHTS | OPEN_TO_OTHERS) != 0;
    change.kind == ChangeKind::Created && !is_open && after.uid == 0 && after.gid == 0 && has_labels_alone(after)
}

/// Whether a file has the content with this MD5, and nobody has more rights by it.
fn is_as_installed(path: &[u8], change: &FileChange, md5: &[u8; 16], evidence: &Evidence) -> bool {
    let is_content = change
        .after
        .as_ref()
        .is_some_and(|after| after.r#type == FileType::File && after.md5.as_str() == hex::encode(md5));
    is_content && keeps_rights(path, change, evidence)
}

/// A package's new content does not explain other rights, nor a new file that raises them: dpkg records neither mode nor owner. An
/// administrator's override explains what it says, unless that raises rights.
fn keeps_rights(path: &[u8], change: &FileChange, evidence: &Evidence) -> bool {
    let Some(after) = &change.after else { return false };
    if let Some(rights) = evidence.overrides.get(path)
        && *rights == Rights::of(after)
        && rights.mode & (RAISES_RIGHTS | OPEN_TO_ALL) == 0
    {
        return has_labels_alone(after);
    }
    match &change.before {
        Some(before) if before.r#type == FileType::File => {
            Rights::of(before) == Rights::of(after) && attributes(before).eq(attributes(after))
        }
        _ => is_safe(after),
    }
}

/// Whether a file that takes no other's place gives nobody anything.
pub(super) fn is_safe(after: &FileState) -> bool {
    after.mode & (RAISES_RIGHTS | OPEN_TO_ALL) == 0 && after.uid == 0 && after.gid == 0 && has_labels_alone(after)
}

/// Whether who runs a file may do more than before.
fn raises_rights(state: &FileState) -> bool {
    state.mode & RAISES_RIGHTS != 0 || attributes(state).any(|attribute| attribute.name.as_str() == CAPABILITY)
}

/// Extended attributes that are not the kernel's own.
pub(super) fn attributes(state: &FileState) -> impl Iterator<Item = &ExtendedAttribute> {
    state.extended_attributes.iter().filter(|attribute| !LABELS.contains(&attribute.name.as_str()))
}

fn has_labels_alone(state: &FileState) -> bool {
    attributes(state).next().is_none()
}

/// Whether an entry is what a database records of it in full.
fn is_whole(after: &FileState, whole: &Whole) -> bool {
    let is_content = match &whole.content {
        Content::None => true,
        Content::Sha256(digest) => after.sha256.as_str() == hex::encode(digest),
        Content::Md5(digest) => after.md5.as_str() == hex::encode(digest),
        Content::Target(target) => after.sha256.as_str() == hex::encode(Sha256::digest(target)),
    };
    // The mode of a link means nothing.
    let rights = |mode, uid, gid| (if whole.kind == FileType::Link { 0 } else { mode }, uid, gid);
    let is_same = rights(after.mode, after.uid, after.gid) == rights(whole.mode, whole.uid, whole.gid);
    after.r#type == whole.kind && is_content && is_same && has_capabilities(after, &whole.capabilities)
}

fn has_capabilities(after: &FileState, recorded: &str) -> bool {
    let mut found = "";
    for attribute in attributes(after) {
        if attribute.name.as_str() != CAPABILITY {
            return false;
        }
        // Without a meaning it cannot be compared, and so is none that a package gave.
        found = if attribute.meaning.is_empty() { "?" } else { attribute.meaning.as_str() };
    }
    // getcap(8) wrote `= cap_x+ep` before libcap 2.41, and writes `cap_x=ep` since.
    let plain = |text: &str| text.trim_start_matches(['=', ' ']).replace('+', "=");
    plain(found) == plain(recorded)
}

/// Explains a file beside a configuration file that holds what that held before a package changed it.
fn keeps_former(path: &[u8], changes: &Changes<'_>) -> Option<(Vec<u8>, Explanation)> {
    let change = &changes.get(path)?.change;
    let (Some((original, Beside::AsBefore)), None, ChangeKind::Created) =
        (beside(path), &change.explanation, change.kind)
    else {
        return None;
    };
    let original = &changes.get(original)?.change;
    let (before, after) = (original.before.as_ref()?, change.after.as_ref()?);
    let is_same = before.r#type == after.r#type
        && before.sha256 == after.sha256
        && Rights::of(before) == Rights::of(after)
        && attributes(before).eq(attributes(after))
        && !raises_rights(after);
    let basis = Text::new(FORMER_CONTENT);
    let explanation = original.explanation.clone().filter(|_| is_same)?;
    Some((path.to_vec(), Explanation { basis, ..explanation }))
}
