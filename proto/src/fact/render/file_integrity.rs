//! File integrity as lines.

use super::{ITEMS, more, more_of, table, text, unknown, value, yes_no};
use crate::{
    fact::{
        Actor, ExplainedChanges, Explanation, ExplanationSource, FileChange, FileIntegrity, FileState, Reading,
        WatchSet,
    },
    words::counted,
};

pub(super) fn lines(files: &FileIntegrity) -> Vec<String> {
    let baseline = &files.baseline;
    let reread = match (files.reread_seconds, &files.reread_in_time) {
        (0, None) => "not told".to_owned(),
        (0, Some(Reading::Known(false))) => "only what metadata says has changed".to_owned(),
        (0, Some(Reading::Known(true))) => "by every scan".to_owned(),
        (0, Some(untold @ Reading::Unknown { .. })) => format!("by every scan: {}", yes_no(untold)),
        (seconds, None) => format!("within {seconds} s"),
        (seconds, Some(kept)) => format!("within {seconds} s, kept: {}", yes_no(kept)),
    };
    let mut lines = table(&[
        (
            "baseline",
            format!(
                "{} of {}, {} ({}), sha256 {}",
                baseline.id,
                baseline.created_time,
                counted(baseline.entries, "entry"),
                baseline.reason,
                baseline.digest
            ),
        ),
        ("scanned", format!("{}, {} unreadable", counted(files.entries, "entry"), files.unreadable_total)),
        ("changes", format!("{} unexplained, {} explained", files.changes_total, files.explained_total)),
        ("watch", watch(files)),
        ("read again", reread),
    ]);
    if !files.state_digest.is_empty() {
        lines.extend(table(&[("state", format!("sha256 {}", files.state_digest))]));
    }
    lines.extend(files.sets.iter().take(ITEMS).map(set));
    lines.extend(more(files.sets.len(), "watch sets"));
    lines.extend(files.paths.iter().take(ITEMS).map(|path| {
        let entries = value(&path.entries, |entries| counted(*entries, "entry"));
        let narrowed = if path.whole == Some(Reading::Known(false)) { ", in part" } else { "" };
        format!("path {}: {entries}{narrowed}", path.path)
    }));
    lines.extend(more(files.paths.len(), "paths"));
    lines.extend(files.changes.iter().take(ITEMS).map(change));
    lines.extend(more_of(files.changes_total, files.changes.len(), "changes"));
    lines.extend(files.explained.iter().take(ITEMS).map(explained));
    lines.extend(more_of(files.explained_groups_total, files.explained.len(), "explanations"));
    for (name, list, total) in [
        ("unreadable", &files.unreadable, files.unreadable_total),
        ("only scanned", &files.scan_only, files.scan_only_total),
    ] {
        let item = |entry: &crate::fact::UnreadablePath| format!("{name} {}: {}", entry.path, unknown(&entry.unknown));
        lines.extend(list.iter().take(ITEMS).map(item));
        lines.extend(more_of(total, list.len(), &format!("{name} entries")));
    }
    lines
}

fn watch(files: &FileIntegrity) -> String {
    let word = files.watch.as_str().replace('_', " ");
    match (files.folders_live, files.folders_scan_only) {
        (0, 0) => word,
        (live, scanned) => format!("{word}: {} live, {scanned} only scanned", counted(live, "folder")),
    }
}

fn set(set: &WatchSet) -> String {
    let owner = if set.owner.is_empty() { String::new() } else { format!(", owner {}", set.owner) };
    format!(
        "set {} ({}{owner}): {}, {} unexplained, {} explained, {} unreadable; definition sha256 {}",
        set.name,
        set.severity.as_str(),
        counted(set.entries, "entry"),
        set.changes_total,
        set.explained_total,
        set.unreadable_total,
        set.digest
    )
}

/// Returns a change of a file as one line, safe to print.
pub fn change(change: &FileChange) -> String {
    let set = if change.set.is_empty() { String::new() } else { format!(" [{}]", change.set) };
    let again = if change.states_seen > 1 { format!(", {} states seen", change.states_seen) } else { String::new() };
    let explained =
        change.explanation.as_ref().map_or_else(String::new, |why| format!(", explained by {}", explanation(why)));
    let actors: String = change.actors.iter().map(|by| format!(", by {}", actor(by))).collect();
    format!(
        "{} {}{set}: {} -> {}, between {} and {}{}{again}{explained}{actors}",
        change.kind.as_str(),
        change.path,
        state(change.before.as_ref()),
        state(change.after.as_ref()),
        change.last_unchanged_time,
        change.detected_time,
        if change.while_not_observed { ", agent not running for some of it" } else { "" }
    )
}

fn state(state: Option<&FileState>) -> String {
    let Some(state) = state else { return "nothing".to_owned() };
    let digest = state.sha256.as_str().get(..12).unwrap_or(state.sha256.as_str());
    let digest = if digest.is_empty() { String::new() } else { format!(" {digest}…") };
    let attributes = state.extended_attributes.iter().map(|attribute| match attribute.meaning.as_str() {
        "" => format!(" {}", attribute.name),
        meaning => format!(" {} {meaning}", attribute.name),
    });
    format!(
        "{} {:04o} {}:{} {} bytes{digest}{}",
        state.r#type.as_str(),
        state.mode,
        state.uid,
        state.gid,
        state.size_bytes,
        attributes.collect::<String>()
    )
}

fn explained(group: &ExplainedChanges) -> String {
    format!(
        "explained by {}: {}, found {} to {}",
        explanation(&group.explanation),
        counted(group.changes_total, "change"),
        group.first_detected_time,
        group.last_detected_time
    )
}

fn explanation(explanation: &Explanation) -> String {
    let Explanation { source, package, version, basis } = explanation;
    match source {
        ExplanationSource::Generated => format!("rule {basis}"),
        ExplanationSource::Dpkg | ExplanationSource::Rpm | ExplanationSource::Pacman => {
            format!("{} {package} {version} ({basis})", source.as_str())
        }
    }
}

fn actor(actor: &Actor) -> String {
    format!(
        "{} (pid {}, uid {}, login uid {}, from {}) at {} by {}",
        text(&actor.program),
        actor.pid,
        text(&actor.uid),
        text(&actor.login_uid),
        text(&actor.parent_program),
        actor.time,
        actor.source
    )
}
