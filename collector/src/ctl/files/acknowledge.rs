//! `files acknowledge`: finds the open changes that are meant, and acknowledges exactly those.

use std::{collections::BTreeSet, fs, path::Path};

use muster_proto::v1::{self, AcknowledgeOutcome};
use serde_json::{Value, json as value};

use super::list;
use crate::ctl::{
    Error, Outcome,
    cli::Acknowledgement,
    connect::Connection,
    print::{Cell, Out, Tone, table},
};

/// Bytes of a file of paths, at most.
const PATHS_BYTES: u64 = 16 << 20;
/// Changes of one request, at most.
const CHANGES: usize = 1000;

/// What became of a path.
struct Done {
    change: v1::HostFileChange,
    outcome: AcknowledgeOutcome,
}

/// Outcome of a change that cannot be acknowledged because the newest report of its host does not list it.
const ONLY_COUNTED: &str = "only counted";

impl Done {
    fn is_counted(&self) -> bool {
        self.outcome == AcknowledgeOutcome::NotOpen && !self.change.listed
    }
}

/// Acknowledges the open changes that are meant. No when one of the paths has none, or one was not open by then.
///
/// # Errors
///
/// When the collector refuses or the file of paths cannot be read.
pub async fn acknowledge(connection: &Connection, out: Out, what: Acknowledgement) -> Result<Outcome, Error> {
    let mut paths: BTreeSet<String> = what.path.iter().cloned().collect();
    if let Some(file) = &what.from {
        paths.extend(read_paths(file)?);
    }
    let found = open_changes(connection, &what, &paths).await?;
    let missing: BTreeSet<&String> = {
        let found: BTreeSet<&str> = found.iter().map(path).collect();
        paths.iter().filter(|path| !found.contains(path.as_str())).collect()
    };
    let mut done = Vec::with_capacity(found.len());
    for changes in found.chunks(CHANGES) {
        let request = v1::AcknowledgeFileChangesRequest {
            changes: changes.iter().map(reference).collect(),
            reason: what.reason.clone(),
            reference: what.reference.clone(),
        };
        let answer = connection.admin().acknowledge_file_changes(request).await;
        let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
        if answer.outcomes.len() != changes.len() {
            return Err(Error::Contract("it does not have an outcome for each change"));
        }
        done.extend(
            changes.iter().zip(answer.outcomes()).map(|(change, outcome)| Done { change: change.clone(), outcome }),
        );
    }
    out.show(|| shown(&done, &missing), |out| text(out, &done, &missing))?;
    let all = done.iter().all(|done| done.outcome != AcknowledgeOutcome::NotOpen);
    Ok(if all && missing.is_empty() { Outcome::Yes } else { Outcome::No })
}

/// Returns the open changes of `paths` on the hosts that are meant, in the states that are meant.
async fn open_changes(
    connection: &Connection,
    what: &Acknowledgement,
    paths: &BTreeSet<String>,
) -> Result<Vec<v1::HostFileChange>, Error> {
    let filter = match what.sha256 {
        Some(digest) => format!("state = open AND after_sha256 = {digest}"),
        None => "state = open".to_owned(),
    };
    // Of one path the collector finds the changes by it; of many, all that are open are fewer questions.
    let path = if paths.len() == 1 { paths.first().cloned().unwrap_or_default() } else { String::new() };
    let host = what.host.clone().unwrap_or_default();
    let asked = v1::ListFileChangesRequest { filter, host, path, ..Default::default() };
    let (mut changes, _) = list(connection, asked, None).await?;
    let after = what.after.map(|digest| digest.to_string());
    changes.retain(|change| {
        paths.contains(self::path(change)) && after.as_ref().is_none_or(|after| change.after_digest == *after)
    });
    Ok(changes)
}

fn read_paths(file: &Path) -> Result<Vec<String>, Error> {
    let read = || {
        if fs::metadata(file)?.len() > PATHS_BYTES {
            return Err(std::io::Error::other("it is larger than 16 MiB"));
        }
        fs::read_to_string(file)
    };
    let text = read().map_err(|source| Error::Read { path: file.to_owned(), source })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .unwrap_or(&text)
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn path(change: &v1::HostFileChange) -> &str {
    change.change.as_ref().map(|change| change.path.as_str()).unwrap_or_default()
}

fn reference(change: &v1::HostFileChange) -> v1::FileChangeReference {
    v1::FileChangeReference {
        host_id: change.host_id.clone(),
        path: path(change).to_owned(),
        after_digest: change.after_digest.clone(),
    }
}

fn outcome(outcome: AcknowledgeOutcome) -> &'static str {
    match outcome {
        AcknowledgeOutcome::Unspecified => "none",
        AcknowledgeOutcome::Done => "acknowledged",
        AcknowledgeOutcome::Already => "already",
        AcknowledgeOutcome::NotOpen => "not_open",
    }
}

fn shown(done: &[Done], missing: &BTreeSet<&String>) -> Value {
    let changes: Vec<Value> = done
        .iter()
        .map(|it| {
            value!({
                "host_id": it.change.host_id, "hostname": it.change.hostname, "path": path(&it.change),
                "after_digest": it.change.after_digest, "outcome": outcome(it.outcome), "listed": it.change.listed,
            })
        })
        .collect();
    value!({ "changes": changes, "paths_without_open_change": missing })
}

fn text(out: Out, done: &[Done], missing: &BTreeSet<&String>) -> String {
    let row = |host: &str, name: &str, path: &str, outcome: &str, tone| -> Vec<Cell> {
        vec![host.get(..12).unwrap_or(host).into(), name.into(), Cell::new(outcome, tone), path.into()]
    };
    let mut rows: Vec<Vec<Cell>> = done
        .iter()
        .map(|it| {
            let tone = if it.outcome == AcknowledgeOutcome::NotOpen { Tone::Bad } else { Tone::Good };
            let outcome = if it.is_counted() { ONLY_COUNTED.to_owned() } else { outcome(it.outcome).replace('_', " ") };
            row(&it.change.host_id, &it.change.hostname, path(&it.change), &outcome, tone)
        })
        .collect();
    rows.extend(missing.iter().map(|path| row("-", "-", path, "no such open change", Tone::Bad)));
    let mut text = table(out, &["HOST", "NAME", "OUTCOME", "PATH"], &rows);
    if done.iter().any(Done::is_counted) {
        text.push_str(&format!(
            "{ONLY_COUNTED}: the newest report of the host has more changes than it lists; fewer must differ before these can be \
             acknowledged\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::print::Form;

    #[test]
    fn a_change_that_is_only_counted_says_why_it_cannot_be_acknowledged() {
        let done = |path: &str, listed| Done {
            change: v1::HostFileChange {
                change: Some(v1::FileChange { path: path.to_owned(), ..Default::default() }),
                listed,
                ..Default::default()
            },
            outcome: AcknowledgeOutcome::NotOpen,
        };
        let all = [done("/etc/a", false), done("/etc/b", true)];
        let text = text(Out::new(Form::Json), &all, &BTreeSet::new());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[1], "only counted  /etc/a");
        assert_eq!(lines[2], "not open      /etc/b");
        assert!(lines[3].starts_with("only counted: the newest report") && lines.len() == 4, "{text}");
        assert_eq!(shown(&all, &BTreeSet::new())["changes"][0]["listed"], false);
    }
}
