//! A complete fact of file integrity.

use super::{path, text, time};
use crate::fact::{
    Actor, Baseline, Cause, ChangeKind, ExplainedChanges, Explanation, ExplanationSource, ExtendedAttribute,
    FileChange, FileIntegrity, FileState, FileType, Reading, Severity, Unknown, UnreadablePath, WatchSet, WatchState,
    WatchedPath,
};

/// Returns one changed file and one that could not be read.
pub fn file_integrity() -> FileIntegrity {
    let state = |sha256: &str| FileState {
        r#type: FileType::File,
        sha256: sha256.into(),
        size_bytes: 1234,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_time: Reading::Known(time(-86_400)),
        changed_time: Some(Reading::Known(time(-86_400))),
        inode: 7,
        links: 1,
        md5: "b2".repeat(16).as_str().into(),
        extended_attributes: vec![ExtendedAttribute {
            name: "security.capability".into(),
            sha256: "a1".repeat(32).as_str().into(),
            meaning: "cap_net_raw=ep".into(),
        }],
    };
    FileIntegrity {
        paths: vec![WatchedPath { path: path("/etc"), entries: Reading::Known(2), whole: Some(Reading::Known(true)) }],
        baseline: Baseline {
            id: "00112233445566778899aabbccddeeff".into(),
            created_time: time(-172_800),
            reason: "first scan".into(),
            entries: 2,
            digest: "c3".repeat(32).as_str().into(),
        },
        entries: 2,
        unreadable: vec![UnreadablePath {
            path: path("/etc/shadow"),
            unknown: Unknown::new(Cause::Forbidden, "open /etc/shadow"),
        }],
        unreadable_total: 1,
        changes: vec![FileChange {
            path: path("/etc/passwd"),
            kind: ChangeKind::Content,
            before: Some(state(&"d4".repeat(32))),
            after: Some(state(&"e5".repeat(32))),
            last_unchanged_time: time(-7200),
            detected_time: time(-3600),
            while_not_observed: false,
            set: "system".into(),
            explanation: None,
            actors: vec![actor()],
            states_seen: 1,
        }],
        changes_total: 1,
        explained_total: 3,
        watch: WatchState::Live,
        sets: vec![WatchSet {
            name: "system".into(),
            severity: Severity::High,
            owner: "platform team".into(),
            entries: 2,
            changes_total: 1,
            explained_total: 3,
            unreadable_total: 1,
            digest: "1a".repeat(32).as_str().into(),
        }],
        explained: vec![ExplainedChanges {
            explanation: Explanation {
                source: ExplanationSource::Dpkg,
                package: "openssl".into(),
                version: "3.0.17-1~deb12u3".into(),
                basis: "md5".into(),
            },
            changes_total: 3,
            first_detected_time: time(-3600),
            last_detected_time: time(-3600),
        }],
        explained_groups_total: 1,
        folders_live: 1,
        folders_scan_only: 1,
        scan_only: vec![UnreadablePath {
            path: path("/etc/ssl"),
            unknown: Unknown::new(Cause::Limit, "no watch is left"),
        }],
        scan_only_total: 1,
        reread_seconds: 86_400,
        reread_in_time: Some(Reading::Known(true)),
        state_digest: "2b".repeat(32).as_str().into(),
    }
}

/// Returns an editor that root started from a shell.
fn actor() -> Actor {
    Actor {
        time: time(-3601),
        pid: 4242,
        program: text("/usr/bin/vim.basic"),
        uid: Reading::Known(0),
        login_uid: Reading::Known(1000),
        parent_pid: Reading::Known(4100),
        parent_program: text("/usr/bin/bash"),
        source: "fanotify".into(),
    }
}
