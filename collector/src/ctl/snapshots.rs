//! `snapshot create`, `snapshot list` and `snapshot get`.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use muster_proto::{id::AgentId, time::Timestamp, v1};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Error, Outcome,
    connect::Connection,
    fleet::{field, time_text},
    json,
    pages::all_pages,
    print::{Cell, Out, say, table},
};

/// Has a snapshot made and, when asked, brings it here.
///
/// # Errors
///
/// When the collector refuses or the file cannot be written.
pub async fn create(
    connection: &Connection,
    out: Out,
    request: v1::CreateSnapshotRequest,
    file: Option<&Path>,
) -> Result<Outcome, Error> {
    // Said before the log holds an export that nobody gets.
    let part = file.map(Part::create).transpose()?;
    let answer = connection.snapshots().create_snapshot(request).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let snapshot = answer.snapshot.ok_or(Error::Contract("it has no snapshot"))?;
    if let Some(part) = part {
        download(connection, &snapshot.id, part, Some(&snapshot.sha256)).await?;
    }
    out.show(|| json::snapshot(&snapshot), |_| snapshot_text(&snapshot))?;
    Ok(Outcome::Yes)
}

/// Returns the ids of hosts that are named by id, the beginning of one, or hostname.
///
/// # Errors
///
/// When the collector does not answer, or does not know one.
pub async fn resolve(connection: &Connection, hosts: Vec<String>) -> Result<Vec<String>, Error> {
    let mut ids = Vec::with_capacity(hosts.len());
    for host in hosts {
        // An id is taken as it is: at the snapshot's instant there may be another host of its name.
        if host.parse::<AgentId>().is_ok() {
            ids.push(host);
            continue;
        }
        let answer = connection.fleet().get_host(v1::GetHostRequest { host }).await;
        let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
        ids.push(answer.host.ok_or(Error::Contract("it has no host"))?.id);
    }
    Ok(ids)
}

/// Returns the request for a snapshot.
pub fn request(
    as_of: Option<Timestamp>,
    log_size: u64,
    controls: Vec<String>,
    hosts: Vec<String>,
) -> v1::CreateSnapshotRequest {
    v1::CreateSnapshotRequest {
        as_of_time: as_of.map(Timestamp::to_wire),
        log_size,
        control_ids: controls,
        host_ids: hosts,
    }
}

fn snapshot_text(snapshot: &v1::Snapshot) -> String {
    [
        ("snapshot", snapshot.id.clone()),
        ("as of", time_text(snapshot.as_of_time.as_ref())),
        ("log size", snapshot.log_size.to_string()),
        ("hosts", snapshot.hosts.to_string()),
        ("size", format!("{} bytes", snapshot.size_bytes)),
        ("sha256", snapshot.sha256.clone()),
    ]
    .iter()
    .map(|(name, value)| field(name, value))
    .collect()
}

/// Prints snapshots, newest first.
///
/// # Errors
///
/// When the collector does not answer.
pub async fn list(connection: &Connection, out: Out, limit: Option<usize>) -> Result<Outcome, Error> {
    let mut client = connection.snapshots();
    let snapshots = all_pages!(connection, limit, snapshots, |page_size, page_token| {
        client.list_snapshots(v1::ListSnapshotsRequest { page_size, page_token: page_token.clone() })
    });
    out.show(
        || Value::Array(snapshots.iter().map(json::snapshot).collect()),
        |out| {
            let row = |snapshot: &v1::Snapshot| -> Vec<Cell> {
                vec![
                    snapshot.id.as_str().into(),
                    time_text(snapshot.create_time.as_ref()).into(),
                    time_text(snapshot.as_of_time.as_ref()).into(),
                    snapshot.log_size.into(),
                    snapshot.hosts.into(),
                    snapshot.size_bytes.into(),
                    snapshot.actor.as_str().into(),
                ]
            };
            let rows: Vec<_> = snapshots.iter().map(row).collect();
            table(out, &["SNAPSHOT", "MADE", "AS OF", "LOG SIZE", "HOSTS", "BYTES", "ASKED BY"], &rows)
        },
    )?;
    Ok(Outcome::Yes)
}

/// Brings a snapshot here.
///
/// # Errors
///
/// When the collector refuses or the file cannot be written.
pub async fn get(connection: &Connection, id: &str, file: &Path) -> Result<Outcome, Error> {
    download(connection, id, Part::create(file)?, None).await?;
    Ok(Outcome::Yes)
}

async fn download(connection: &Connection, id: &str, mut part: Part, sha256: Option<&str>) -> Result<(), Error> {
    let request = v1::DownloadSnapshotRequest { id: id.to_owned() };
    let answer = connection.snapshots().download_snapshot(request).await;
    let mut stream = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let mut digest = Sha256::new();
    while let Some(chunk) = stream.message().await.map_err(|status| connection.fault(&status))? {
        digest.update(&chunk.data);
        part.write(&chunk.data)?;
    }
    let digest = hex::encode(digest.finalize());
    // An id is the beginning of the digest, so that a snapshot that was asked for by its id is checked too.
    if !digest.starts_with(id) || sha256.is_some_and(|expected| expected != digest) {
        return Err(Error::Contract("the snapshot's bytes do not have its digest"));
    }
    let file = part.finish()?;
    say(&format!("wrote {}; check it with: musterctl verify {}", file.display(), file.display()));
    Ok(())
}

/// A file under way, beside its target, so that a broken download never looks like a snapshot. Dropped unfinished, it goes away.
#[derive(Debug)]
struct Part {
    target: PathBuf,
    path: PathBuf,
    file: File,
    is_done: bool,
}

impl Part {
    fn create(target: &Path) -> Result<Self, Error> {
        if target.exists() {
            return Err(Error::Usage(format!("{} is there already; name another file", target.display())));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::create_new(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Self { target: target.to_owned(), path, file, is_done: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    /// Links rather than renames, so that a file that appeared meanwhile stays. Returns the target.
    fn finish(mut self) -> Result<PathBuf, Error> {
        self.is_done = true;
        let done = self
            .file
            .sync_all()
            .and_then(|()| std::fs::hard_link(&self.path, &self.target).or_else(|error| self.rename(error)))
            .map_err(|source| Error::Write { path: self.target.clone(), source });
        // Renamed already, or of no use any more.
        let _ = std::fs::remove_file(&self.path);
        done.map(|()| self.target.clone())
    }

    /// For file systems without links.
    fn rename(&self, error: std::io::Error) -> std::io::Result<()> {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::rename(&self.path, &self.target),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done {
            // Nothing is to be done when it stays: its name says what it is.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_download_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("s.zip");
        let mut part = Part::create(&target).unwrap();
        part.write(b"half").unwrap();
        drop(part);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut part = Part::create(&target).unwrap();
        part.write(b"whole").unwrap();
        let late = Part::create(&target);
        assert!(late.is_err(), "another download of this process is under way there");
        assert_eq!(part.finish().unwrap(), target);
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(Part::create(&target), Err(Error::Usage(_))));
    }

    #[test]
    fn a_file_that_appeared_during_a_download_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("s.zip");
        let part = Part::create(&target).unwrap();
        std::fs::write(&target, b"whole").unwrap();
        assert!(part.finish().is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_before_anything_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Part::create(&folder.path().join("absent").join("s.zip")), Err(Error::Write { .. })));
    }
}
