//! Answers about changes of files: what became of them, what explains others, and who has which content.
//!
//! Lists are read in chunks, so that an answer needs no more memory than a page of it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use muster_proto::{
    fact::PathText,
    id::{AgentId, Digest},
    time::Timestamp,
    v1,
};
use prost::Message as _;
use tonic::Status;

use super::{Field, Inner, Page, host::resolve, parse_filter, parse_page};
use crate::{
    serve::status::{Reason, internal, invalid},
    views::{self, BaselineRow, Cursor, FileChangeRow, FileEnd, FilesDropped, GroupRow, HostRow, HostState},
};

/// Rows that are read at once.
const CHUNK: u64 = 500;

const SEVERITIES: &[&str] = &["critical", "high", "medium", "low", ""];
const KINDS: &[&str] = &["created", "deleted", "content", "metadata", "type"];
const STATES: &[&str] = &["open", "acknowledged", "ended"];
const SOURCES: &[&str] = &["dpkg", "rpm", "pacman", "generated"];

const CHANGE_FIELDS: &[Field] = &[
    Field::text("host_id"),
    Field::text("hostname"),
    Field::text("path"),
    Field::of("kind", KINDS),
    Field::text("set"),
    Field::of("severity", SEVERITIES),
    Field::of("state", STATES),
    Field::text("before_sha256"),
    Field::text("after_sha256"),
];
const GROUP_FIELDS: &[Field] = &[
    Field::text("host_id"),
    Field::text("hostname"),
    Field::of("source", SOURCES),
    Field::text("package"),
    Field::text("version"),
];

/// Where a change of a file stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeState {
    /// Nothing explains it and nobody acknowledged it.
    Open,
    /// An operator acknowledged it.
    Acknowledged,
    /// The file no longer differs in this way, or never did.
    Ended,
}

impl ChangeState {
    fn of(row: &FileChangeRow) -> Self {
        match (&row.ended, &row.acknowledged) {
            (Some(_), _) => Self::Ended,
            (None, Some(_)) => Self::Acknowledged,
            (None, None) => Self::Open,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Ended => "ended",
        }
    }

    fn to_wire(self) -> v1::FileChangeState {
        match self {
            Self::Open => v1::FileChangeState::Open,
            Self::Acknowledged => v1::FileChangeState::Acknowledged,
            Self::Ended => v1::FileChangeState::Ended,
        }
    }
}

/// Names of hosts, as they give them to themselves.
struct Names(BTreeMap<AgentId, Arc<HostRow>>);

impl Names {
    fn of(&self, agent: AgentId) -> &str {
        self.0.get(&agent).map(|host| host.agent.hostname.as_str()).unwrap_or_default()
    }
}

/// Which hosts are meant, and what they are called.
fn scope(inner: &Inner, host: &str) -> Result<(Option<AgentId>, Names), Status> {
    let (_, hosts) = inner.judge.hosts();
    let of = if host.is_empty() { None } else { Some(resolve(&hosts, host)?.agent.agent) };
    Ok((of, Names(hosts.into_iter().map(|host| (host.agent.agent, host)).collect())))
}

pub(super) fn changes(
    inner: &Inner,
    request: &v1::ListFileChangesRequest,
) -> Result<v1::ListFileChangesResponse, Status> {
    let filter = parse_filter(&request.filter, CHANGE_FIELDS)?;
    let start = time("start_time", request.start_time.as_ref())?;
    let end = time("end_time", request.end_time.as_ref())?;
    // A token belongs to everything that was asked for.
    let span = format!("{start:?} {end:?}");
    let asked = [&request.filter, &request.host, &request.path, &span].map(String::as_str).join("\0");
    let page = parse_page("file_changes", &asked, request.page_size, &request.page_token)?;
    let (of, names) = scope(inner, &request.host)?;
    let path = (!request.path.is_empty()).then(|| checked_path(&request.path)).transpose()?;
    let fetch = |after| inner.views.file_changes(after, of, path.as_ref().map(PathText::as_str), CHUNK);
    let keep = |row: &FileChangeRow| {
        let received = row.from.1;
        start.is_none_or(|start| received >= start)
            && end.is_none_or(|end| received < end)
            && filter.matches(|field| change_field(row, names.of(row.agent), field))
    };
    let (rows, next_page_token) = chunked(&page, fetch, |row| (row.agent, row.number), keep, |row| row.bytes.len())?;
    Ok(v1::ListFileChangesResponse {
        changes: rows.into_iter().map(|row| change(row, &names)).collect(),
        next_page_token,
        dropped: dropped(inner, of)?.changes,
    })
}

pub(super) fn explained(
    inner: &Inner,
    request: &v1::ListExplainedChangesRequest,
) -> Result<v1::ListExplainedChangesResponse, Status> {
    let filter = parse_filter(&request.filter, GROUP_FIELDS)?;
    let asked = [request.filter.as_str(), request.host.as_str()].join("\0");
    let page = parse_page("explained_changes", &asked, request.page_size, &request.page_token)?;
    let (of, names) = scope(inner, &request.host)?;
    let fetch = |after| inner.views.explained_groups(after, of, CHUNK);
    let keep = |row: &GroupRow| filter.matches(|field| group_field(row, names.of(row.agent), field));
    let (rows, next_page_token) = chunked(&page, fetch, |row| (row.agent, row.number), keep, |_| 0)?;
    Ok(v1::ListExplainedChangesResponse {
        groups: rows.into_iter().map(|row| group(&row, &names)).collect(),
        next_page_token,
        dropped: dropped(inner, of)?.groups,
    })
}

pub(super) fn baselines(
    inner: &Inner,
    request: &v1::ListFileBaselinesRequest,
) -> Result<v1::ListFileBaselinesResponse, Status> {
    let page = parse_page("file_baselines", &request.host, request.page_size, &request.page_token)?;
    let (_, hosts) = inner.judge.hosts();
    let agent = resolve(&hosts, &request.host)?.agent.agent;
    let rows = inner.views.file_baselines(agent).map_err(|error| failed(&error))?;
    let keyed = rows.iter().map(|row| (key((agent, row.number)), baseline(row)));
    let (baselines, next_page_token) = page.take(keyed);
    let dropped = dropped(inner, Some(agent))?.baselines;
    Ok(v1::ListFileBaselinesResponse { baselines, next_page_token, dropped })
}

pub(super) fn holders(
    inner: &Inner,
    request: &v1::ListFileHoldersRequest,
) -> Result<v1::ListFileHoldersResponse, Status> {
    let path = checked_path(&request.path)?;
    if !request.sha256.is_empty() && request.sha256.parse::<Digest>().is_err() {
        return Err(invalid(Reason::PathInvalid, "sha256", "64 lower-case hex digits, or empty for any content"));
    }
    let asked = [request.path.as_str(), request.sha256.as_str()].join("\0");
    let page = parse_page("file_holders", &asked, request.page_size, &request.page_token)?;
    let (_, names) = scope(inner, "")?;
    let rows = inner.views.file_contents(path.as_str()).map_err(|error| failed(&error))?;
    let mut holders = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let is_last = rows.get(at + 1).is_none_or(|next| next.agent != row.agent);
        holders.extend(holders_of(row, is_last, names.of(row.agent)));
    }
    holders.retain(|(_, holder)| request.sha256.is_empty() || holder.sha256 == request.sha256);
    let (holders, next_page_token) = page.take(holders.into_iter());
    let mut answer = v1::ListFileHoldersResponse { holders, next_page_token, ..Default::default() };
    for (agent, host) in inner.views.file_hosts().map_err(|error| failed(&error))? {
        let is_revoked = names.0.get(&agent).is_none_or(|host| host.agent.state == HostState::Revoked);
        if is_revoked || !host.watched.covers(path.as_str()) {
            continue;
        }
        answer.watching_hosts += 1;
        let last = rows.partition_point(|row| row.agent <= agent).checked_sub(1).map(|at| &rows[at]);
        match last.filter(|row| row.agent == agent) {
            Some(row) => answer.unknown_hosts += u64::from(!is_content_known(row)),
            None => {
                answer.unknown_hosts += 1;
                answer.forgotten_hosts += u64::from(host.changes.dropped > 0);
            }
        }
    }
    Ok(answer)
}

/// Returns where each change stands, in its order.
pub(super) fn standings(inner: &Inner, changes: &[(AgentId, String, Digest)]) -> Result<Vec<ChangeState>, Status> {
    let mut known: BTreeMap<&str, Vec<FileChangeRow>> = BTreeMap::new();
    for (_, path, _) in changes {
        if !known.contains_key(path.as_str()) {
            known.insert(path, inner.views.file_contents(path).map_err(|error| failed(&error))?);
        }
    }
    let standing = |(agent, path, digest): &(AgentId, String, Digest)| {
        let rows = known.get(path.as_str()).map(Vec::as_slice).unwrap_or_default();
        let row = rows
            .iter()
            .find(|row| row.agent == *agent && row.after_digest == *digest && row.ended.is_none() && row.is_listed);
        row.map_or(ChangeState::Ended, ChangeState::of)
    };
    Ok(changes.iter().map(standing).collect())
}

/// Returns the page of a list that is read in chunks, each after the last item of the one before. `bytes` is what of an item has no
/// small bound.
fn chunked<T>(
    page: &Page<'_>,
    fetch: impl Fn(Option<Cursor>) -> Result<Vec<T>, views::Error>,
    cursor: impl Fn(&T) -> Cursor,
    keep: impl Fn(&T) -> bool,
    bytes: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, String), Status> {
    let mut after = page.after().map(parse_key).transpose()?;
    let (mut found, mut taken) = (Vec::new(), 0);
    while !page.is_beyond(found.len(), taken) {
        let chunk = fetch(after).map_err(|error| failed(&error))?;
        let Some(last) = chunk.last() else { break };
        after = Some(cursor(last));
        let kept = chunk.into_iter().filter(&keep);
        found.extend(kept.inspect(|item| taken += bytes(item)));
    }
    Ok(page.take_within(found.into_iter().map(|item| (key(cursor(&item)), item)), bytes))
}

/// Returns a key whose order is that of the lists.
fn key((agent, number): Cursor) -> String {
    format!("{agent} {number:020}")
}

fn parse_key(key: &str) -> Result<Cursor, Status> {
    let parsed = key.split_once(' ').and_then(|(agent, number)| Some((agent.parse().ok()?, number.parse().ok()?)));
    parsed.ok_or_else(|| invalid(Reason::PageTokenInvalid, "page_token", super::page::Error::Token.to_string()))
}

fn checked_path(path: &str) -> Result<PathText, Status> {
    let wrong = |what: &str| invalid(Reason::PathInvalid, "path", what);
    let path = PathText::parse(path.to_owned()).filter(|path| path.as_str().starts_with('/')).ok_or_else(|| {
        wrong("an absolute path as facts write it: what is not UTF-8, a control character or a backslash is \\xNN")
    })?;
    // What facts never write would be answered with nothing, as if nobody had such a file.
    for part in path.as_str().split('/').skip(1) {
        match part {
            "" if path.as_str() == "/" => {}
            "" => return Err(wrong("no two slashes in a row and none at the end: /etc/passwd, also for a folder")),
            "." | ".." => return Err(wrong("no part of it `.` or `..`: the path as it is from the root on")),
            _ => {}
        }
    }
    Ok(path)
}

fn failed(error: &views::Error) -> Status {
    internal("failed to read the views", error)
}

/// Returns a time of a request. One that cannot be is refused: taken as unset it would be answered with everything.
fn time(field: &str, wire: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let parsed = |wire| {
        Timestamp::from_wire(wire)
            .ok_or_else(|| invalid(Reason::RequestInvalid, field, "a time from 1970 to 2999; unset means all"))
    };
    wire.map(parsed).transpose()
}

fn dropped(inner: &Inner, of: Option<AgentId>) -> Result<FilesDropped, Status> {
    inner.views.files_dropped(of).map_err(|error| failed(&error))
}

fn change_field<'v>(row: &'v FileChangeRow, hostname: &'v str, field: &str) -> Cow<'v, str> {
    match field {
        "host_id" => row.agent.to_string().into(),
        "hostname" => hostname.into(),
        "path" => row.path.as_str().into(),
        "kind" => row.kind.as_str().into(),
        "set" => row.set.as_str().into(),
        "severity" => row.severity.as_str().into(),
        "state" => ChangeState::of(row).as_str().into(),
        "before_sha256" => row.before_sha256.as_str().into(),
        _ => row.after_sha256.as_str().into(),
    }
}

fn group_field<'v>(row: &'v GroupRow, hostname: &'v str, field: &str) -> Cow<'v, str> {
    let why = &row.group.explanation;
    match field {
        "host_id" => row.agent.to_string().into(),
        "hostname" => hostname.into(),
        "source" => why.source.as_str().into(),
        "package" => why.package.as_str().into(),
        _ => why.version.as_str().into(),
    }
}

fn change(row: FileChangeRow, names: &Names) -> v1::HostFileChange {
    let state = ChangeState::of(&row);
    let (end_time, end_log_index, end, end_reason) = match row.ended {
        Some((index, time, end, reason)) => (Some(time.to_wire()), index, end.to_wire(), reason),
        None => (None, 0, v1::FileChangeEnd::Unspecified, String::new()),
    };
    v1::HostFileChange {
        host_id: row.agent.to_string(),
        hostname: names.of(row.agent).to_owned(),
        number: row.number,
        change: v1::FileChange::decode(row.bytes.as_slice()).ok(),
        severity: row.severity,
        after_digest: row.after_digest.to_string(),
        state: state.to_wire().into(),
        received_time: Some(row.from.1.to_wire()),
        log_index: row.from.0,
        listed: row.is_listed,
        end: end.into(),
        end_time,
        end_log_index,
        end_reason,
        acknowledgement: row.acknowledged.map(|it| v1::FileChangeAcknowledgement {
            actor: it.actor,
            time: Some(it.time.to_wire()),
            log_index: it.log_index,
            reason: it.reason,
            reference: it.reference,
        }),
    }
}

fn group(row: &GroupRow, names: &Names) -> v1::HostExplainedChanges {
    let (group, why) = (&row.group, &row.group.explanation);
    v1::HostExplainedChanges {
        host_id: row.agent.to_string(),
        hostname: names.of(row.agent).to_owned(),
        number: row.number,
        explained: Some(v1::ExplainedChanges {
            explanation: Some(v1::Explanation {
                source: why.source.as_str().to_owned(),
                package: why.package.to_string(),
                version: why.version.to_string(),
                basis: why.basis.to_string(),
            }),
            changes_total: group.changes_total,
            first_detected_time: Some(group.first_detected_time.to_wire()),
            last_detected_time: Some(group.last_detected_time.to_wire()),
        }),
        received_time: Some(row.from.1.to_wire()),
        log_index: row.from.0,
        end_time: row.ended.map(|(_, time)| time.to_wire()),
        end_log_index: row.ended.map(|(index, _)| index).unwrap_or_default(),
    }
}

fn baseline(row: &BaselineRow) -> v1::HostBaseline {
    let baseline = &row.baseline;
    v1::HostBaseline {
        number: row.number,
        baseline: Some(v1::Baseline {
            id: baseline.id.to_string(),
            created_time: Some(baseline.created_time.to_wire()),
            reason: baseline.reason.to_string(),
            entries: baseline.entries,
            digest: baseline.digest.to_string(),
        }),
        received_time: Some(row.from.1.to_wire()),
        log_index: row.from.0,
        lost_before: row.lost_before,
    }
}

/// Returns the contents that a change tells, the baseline's first, each with its key. `is_last` is the host's last word on the path.
fn holders_of(row: &FileChangeRow, is_last: bool, hostname: &str) -> Vec<(String, v1::FileHolder)> {
    let end = row.ended.as_ref().map(|(_, _, end, _)| *end);
    let has_now = |found: bool| match end {
        None | Some(FileEnd::Accepted) => is_last && found,
        Some(FileEnd::Restored) => is_last && !found,
        // What came after is not known, or is another change's matter.
        Some(FileEnd::RestoredOrExplained | FileEnd::ChangedAgain | FileEnd::BaselineLost | FileEnd::NotWatched) => {
            false
        }
    };
    let holder = |found: bool, sha256: &str| {
        let holder = v1::FileHolder {
            host_id: row.agent.to_string(),
            hostname: hostname.to_owned(),
            change_number: row.number,
            sha256: sha256.to_owned(),
            found,
            current: has_now(found),
            detected_time: Some(row.detected.to_wire()),
            log_index: row.from.0,
        };
        (format!("{} {}", key((row.agent, row.number)), u8::from(found)), holder)
    };
    let before = (row.kind != "created").then(|| holder(false, &row.before_sha256));
    let after = (row.kind != "deleted").then(|| holder(true, &row.after_sha256));
    before.into_iter().chain(after).collect()
}

/// Returns whether a host's last word on a path tells what content it has there now, if any.
fn is_content_known(row: &FileChangeRow) -> bool {
    match row.ended.as_ref().map(|(_, _, end, _)| *end) {
        None | Some(FileEnd::Accepted) => row.kind == "deleted" || !row.after_sha256.is_empty(),
        Some(FileEnd::Restored) => row.kind == "created" || !row.before_sha256.is_empty(),
        Some(FileEnd::RestoredOrExplained | FileEnd::ChangedAgain | FileEnd::BaselineLost | FileEnd::NotWatched) => {
            false
        }
    }
}

#[cfg(test)]
mod tests;
