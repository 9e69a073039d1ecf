//! `files`: changes of watched files, what became of them, and an operator's word on them.

mod acknowledge;
mod json;
mod timeline;

use muster_proto::{
    fact::{self, FileChange},
    id::Digest,
    v1::{self, FileChangeState},
    words::counted,
};
use prost::Message as _;
use serde_json::{Value, json as value};

use super::{
    Error, Outcome,
    cli::Changes,
    connect::Connection,
    fleet::time_text,
    pages::all_pages,
    print::{Cell, Out, Tone, say, table},
};

pub use acknowledge::acknowledge;
pub use timeline::timeline;

/// Prints changes and, when asked, says by the exit code whether there are any.
///
/// # Errors
///
/// When the collector does not answer or refuses what was asked.
pub async fn changes(connection: &Connection, out: Out, which: Changes) -> Result<Outcome, Error> {
    let filter = match (which.open, which.list.filter.as_str()) {
        (false, filter) => filter.to_owned(),
        (true, "") => "state = open".to_owned(),
        (true, filter) => format!("state = open AND ({filter})"),
    };
    let asked = v1::ListFileChangesRequest {
        filter,
        host: which.host.unwrap_or_default(),
        path: which.path.unwrap_or_default(),
        start_time: which.since.map(muster_proto::time::Timestamp::to_wire),
        end_time: which.until.map(muster_proto::time::Timestamp::to_wire),
        ..Default::default()
    };
    let (changes, dropped) = list(connection, asked, which.list.limit).await?;
    out.show(
        || Value::Array(changes.iter().map(json::change).collect()),
        |out| {
            let rows: Vec<_> = changes.iter().map(change_row).collect();
            table(out, &["HOST", "NAME", "STATE", "SEVERITY", "KIND", "FOUND", "CONTENT", "PATH"], &rows)
        },
    )?;
    say_dropped(dropped, "older change");
    Ok(if which.exit_code && !changes.is_empty() { Outcome::No } else { Outcome::Yes })
}

/// Returns changes of all pages, and how many are no longer kept.
async fn list(
    connection: &Connection,
    asked: v1::ListFileChangesRequest,
    limit: Option<usize>,
) -> Result<(Vec<v1::HostFileChange>, u64), Error> {
    let mut client = connection.fleet();
    let mut dropped = 0;
    let changes = all_pages!(connection, limit, changes, |page_size, page_token| {
        let request = v1::ListFileChangesRequest { page_size, page_token: page_token.clone(), ..asked.clone() };
        let answer = client.list_file_changes(request);
        async {
            let answer = answer.await?;
            dropped = answer.get_ref().dropped;
            Ok::<_, tonic::Status>(answer)
        }
    });
    Ok((changes, dropped))
}

fn change_row(change: &v1::HostFileChange) -> Vec<Cell> {
    let it = change.change.clone().unwrap_or_default();
    let content = it.after.as_ref().map(|state| state.sha256.get(..12).unwrap_or(&state.sha256)).unwrap_or("-");
    vec![
        change.host_id.get(..12).unwrap_or(&change.host_id).into(),
        change.hostname.as_str().into(),
        Cell::new(&state_text(change), tone(change.state())),
        if change.severity.is_empty() { "-" } else { &change.severity }.into(),
        it.kind.as_str().into(),
        time_text(it.detected_time.as_ref()).into(),
        content.into(),
        it.path.as_str().into(),
    ]
}

/// Prints groups of explained changes.
///
/// # Errors
///
/// When the collector does not answer or does not know the host.
pub async fn explained(
    connection: &Connection,
    out: Out,
    host: &str,
    filter: &str,
    limit: Option<usize>,
) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let mut dropped = 0;
    let groups = all_pages!(connection, limit, groups, |page_size, page_token| {
        let (filter, host) = (filter.to_owned(), host.to_owned());
        let request = v1::ListExplainedChangesRequest { page_size, page_token: page_token.clone(), filter, host };
        let answer = client.list_explained_changes(request);
        async {
            let answer = answer.await?;
            dropped = answer.get_ref().dropped;
            Ok::<_, tonic::Status>(answer)
        }
    });
    out.show(
        || Value::Array(groups.iter().map(json::group).collect()),
        |out| {
            let rows: Vec<_> = groups.iter().map(group_row).collect();
            table(out, &["BY", "PACKAGE", "VERSION", "BASIS", "CHANGES", "FIRST", "LAST", "UNTIL"], &rows)
        },
    )?;
    say_dropped(dropped, "older group");
    Ok(Outcome::Yes)
}

fn group_row(group: &v1::HostExplainedChanges) -> Vec<Cell> {
    let it = group.explained.clone().unwrap_or_default();
    let why = it.explanation.unwrap_or_default();
    vec![
        why.source.as_str().into(),
        why.package.as_str().into(),
        why.version.as_str().into(),
        why.basis.as_str().into(),
        it.changes_total.into(),
        time_text(it.first_detected_time.as_ref()).into(),
        time_text(it.last_detected_time.as_ref()).into(),
        time_text(group.end_time.as_ref()).into(),
    ]
}

/// Prints who has a content at a path, and for how many hosts that is not known.
///
/// # Errors
///
/// When the collector does not answer or the path is none.
pub async fn who_has(
    connection: &Connection,
    out: Out,
    path: &str,
    sha256: Option<Digest>,
    limit: Option<usize>,
) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let mut counts = (0, 0, 0);
    let holders = all_pages!(connection, limit, holders, |page_size, page_token| {
        let (path, sha256) = (path.to_owned(), sha256.map(|digest| digest.to_string()).unwrap_or_default());
        let request = v1::ListFileHoldersRequest { page_size, page_token: page_token.clone(), path, sha256 };
        let answer = client.list_file_holders(request);
        async {
            let answer = answer.await?;
            let it = answer.get_ref();
            counts = (it.watching_hosts, it.unknown_hosts, it.forgotten_hosts);
            Ok::<_, tonic::Status>(answer)
        }
    });
    let (watching, unknown, forgotten) = counts;
    out.show(
        || {
            value!({
                "holders": holders.iter().map(json::holder).collect::<Vec<_>>(), "watching_hosts": watching,
                "unknown_hosts": unknown, "forgotten_hosts": forgotten,
            })
        },
        |out| {
            let rows: Vec<_> = holders.iter().map(holder_row).collect();
            let text = table(out, &["HOST", "NAME", "NOW", "AS", "FOUND", "CONTENT"], &rows);
            let forgot = match forgotten {
                0 => String::new(),
                _ => format!(" ({forgotten} may have reported a change that is no longer kept)"),
            };
            format!(
                "{text}\nhosts that watch the path or a folder above it: {watching}\nof these, what content they have now is not \
                 known: {unknown}{forgot}\n"
            )
        },
    )?;
    Ok(Outcome::Yes)
}

fn holder_row(holder: &v1::FileHolder) -> Vec<Cell> {
    vec![
        holder.host_id.get(..12).unwrap_or(&holder.host_id).into(),
        holder.hostname.as_str().into(),
        if holder.current { "yes" } else { "no" }.into(),
        if holder.found { "found" } else { "baseline" }.into(),
        time_text(holder.detected_time.as_ref()).into(),
        if holder.sha256.is_empty() { "-" } else { &holder.sha256 }.into(),
    ]
}

fn say_dropped(dropped: u64, what: &str) {
    if dropped > 0 {
        say(&format!("no longer kept, but in the evidence log: {}", counted(dropped, what)));
    }
}

/// Returns where a change stands, and whether the newest report of its host only counts it.
fn state_text(change: &v1::HostFileChange) -> String {
    let is_counted = !change.listed && change.end_time.is_none();
    format!("{}{}", state(change.state()), if is_counted { ", only counted" } else { "" })
}

/// Returns the name of where a change stands.
fn state(state: FileChangeState) -> &'static str {
    match state {
        FileChangeState::Unspecified => "none",
        FileChangeState::Open => "open",
        FileChangeState::Acknowledged => "acknowledged",
        FileChangeState::Ended => "ended",
    }
}

fn tone(state: FileChangeState) -> Tone {
    match state {
        FileChangeState::Open => Tone::Bad,
        FileChangeState::Acknowledged => Tone::Good,
        FileChangeState::Ended | FileChangeState::Unspecified => Tone::Dim,
    }
}

/// Returns a change as one line.
fn change_line(change: Option<&v1::FileChange>) -> String {
    match change.map(|change| FileChange::decode(&change.encode_to_vec())) {
        Some(Ok(change)) => fact::render::file_change(&change),
        Some(Err(error)) => format!("cannot be shown: {error}"),
        None => "cannot be shown".to_owned(),
    }
}
