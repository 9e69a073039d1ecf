//! Answers `SnapshotService`: makes snapshots, keeps them, hands them out. Every export is an act in the log before its bytes leave.

use std::{
    io::{self, Read as _},
    sync::Arc,
};

use muster_proto::{
    fact::Text,
    id::{AgentId, ControlId, Digest},
    limits,
    time::{Clock, Timestamp},
    v1::{self, act::Act, snapshot_service_server},
    words::counted,
};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    archive,
    make::{self, Made, make},
    manifest::Parameters,
    store::{Record, Store},
};
use crate::{
    acts::Acts,
    control::Catalogue,
    log::{self, Checkpoint, Key, Log},
    query::page::{self, Page},
    serve::{
        caller::{self, Calling},
        status::{Reason, internal, invalid, refuse},
    },
};

/// Bytes of one message of a download.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages of a download that wait for a slow reader, at most.
const CHUNKS: usize = 4;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotService {
    parts: Arc<Parts>,
    /// One snapshot is made at a time: each reads the whole log and holds what it makes.
    making: Arc<Mutex<()>>,
}

/// What the service works with.
pub struct Parts {
    /// The log.
    pub log: Log,
    /// The log's key, which signs snapshots.
    pub key: Key,
    /// Writes acts.
    pub acts: Acts,
    /// The controls in force.
    pub catalogue: Arc<Catalogue>,
    /// Where snapshots are kept.
    pub store: Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl SnapshotService {
    /// Returns the service.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), making: Arc::default() }
    }

    async fn create(&self, who: &Calling, request: v1::CreateSnapshotRequest) -> Result<Record, Status> {
        let parts = &self.parts;
        let now = parts.clock.now();
        let newest = parts.log.checkpoint();
        let newest =
            newest.ok_or_else(|| refuse(Reason::LogEmpty, "the log is empty; ask again after a first entry"))?;
        let size = if request.log_size == 0 { newest.size } else { request.log_size };
        let parameters = parameters(&request, size, now, &parts.catalogue)?;
        let _one = self.making.lock().await;
        let (made, sha256) = {
            let parts = Arc::clone(parts);
            blocking(move || {
                let checkpoint = checkpoint(&parts, &newest, size)?;
                check_begun(&parts.log, parameters.as_of)?;
                check_reach(&parts.log, &parts.store, &parameters)?;
                let made = make(&parts.log, &parts.key, &checkpoint, &parts.catalogue, parameters).map_err(refused)?;
                let sha256 = Digest::of_bytes(&made.bytes);
                let stored = parts.store.put_bytes(&sha256, &made.bytes);
                stored.map_err(|error| internal("failed to keep a snapshot", &error))?;
                Ok((made, sha256))
            })
            .await?
        };
        let record = record(&made, sha256, now, who);
        let exported = self.export(who, &record).await;
        let parts = Arc::clone(parts);
        blocking(move || match exported {
            Ok(()) => parts.store.put_record(&record).map_err(|error| internal("failed to keep a snapshot", &error)),
            Err(status) => {
                // Whatever keeps it there is met again, and removed, at the next start.
                let _ = parts.store.discard(&record.sha256);
                Err(status)
            }
        })
        .await
    }

    async fn export(&self, who: &Calling, record: &Record) -> Result<(), Status> {
        let exported = v1::SnapshotExported {
            snapshot_id: record.id(),
            digest: record.sha256.as_bytes().to_vec(),
            hosts: record.hosts,
        };
        self.parts.acts.record(who, Act::SnapshotExported(exported)).await?;
        tracing::info!(snapshot = record.id(), actor = %who.caller, "snapshot exported");
        Ok(())
    }
}

/// Runs what reads or writes the disk away from the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(internal("work on a snapshot was cut off", &error)),
    }
}

/// Returns the checkpoint of a size.
fn checkpoint(parts: &Parts, newest: &Checkpoint, size: u64) -> Result<Checkpoint, Status> {
    make::checkpoint_at(&parts.log, &parts.key, newest, size).map_err(|error| match error {
        log::Error::Position { .. } => invalid(
            Reason::LogPositionInvalid,
            "log_size",
            format!("the log has {}; ask for that many or fewer", counted(newest.size, "entry")),
        ),
        error => internal("failed to read the log", &error),
    })
}

/// Refuses an instant before the first entry: nothing is known of it, and a snapshot of it would look as if nothing had been there.
fn check_begun(log: &Log, as_of: Timestamp) -> Result<(), Status> {
    let first = make::next_received(log, 0).map_err(|error| internal("failed to read the log", &error))?;
    match first {
        Some(first) if as_of < first => {
            let message = format!("the log begins at {first}: ask for an instant from then on");
            Err(invalid(Reason::LogPositionInvalid, "as_of_time", message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses an instant that the entries do not reach: what came between would be left out, and nobody could tell. What was under way
/// to the log when a snapshot was made first does not stand against making it again.
fn check_reach(log: &Log, store: &Store, parameters: &Parameters) -> Result<(), Status> {
    let (size, as_of) = (parameters.log_size, parameters.as_of);
    let next = make::next_received(log, size).map_err(|error| internal("failed to read the log", &error))?;
    let Some(next) = next.filter(|next| *next < as_of) else { return Ok(()) };
    let records = store.records().map_err(|error| internal("failed to list snapshots", &error))?;
    if records.iter().any(|record| record.log_size == size && record.as_of == as_of) {
        return Ok(());
    }
    let message = format!(
        "the first {size} entries of the log end before {as_of}: the next one was received at {next}. Ask for an instant up to then, or \
         leave log_size out"
    );
    Err(invalid(Reason::LogPositionInvalid, "log_size", message))
}

fn record(made: &Made, sha256: Digest, now: Timestamp, who: &Calling) -> Record {
    let parameters = &made.bundle.manifest.parameters;
    Record {
        sha256,
        size_bytes: made.bytes.len() as u64,
        create_time: now,
        as_of: parameters.as_of,
        log_size: parameters.log_size,
        hosts: made.bundle.manifest.counts.hosts,
        actor: who.caller.to_string(),
    }
}

/// Returns the parameters that a request asks for.
fn parameters(
    request: &v1::CreateSnapshotRequest,
    log_size: u64,
    now: Timestamp,
    catalogue: &Catalogue,
) -> Result<Parameters, Status> {
    let as_of = match &request.as_of_time {
        None => now,
        Some(wire) => Timestamp::from_wire(wire)
            .filter(|as_of| *as_of <= now)
            .ok_or_else(|| invalid(Reason::AsOfInFuture, "as_of_time", format!("it must be in 1970 to now ({now})")))?,
    };
    let mut controls = Vec::with_capacity(request.control_ids.len());
    for id in &request.control_ids {
        let known = catalogue.control(id).map(|control| control.id.clone());
        controls.push(known.ok_or_else(|| {
            let id = Text::cut(id, limits::WORD_BYTES);
            let message = format!("{id} is none; list them with `musterctl controls list`");
            invalid(Reason::ControlNotFound, "control_ids", message)
        })?);
    }
    let mut hosts = Vec::with_capacity(request.host_ids.len());
    for id in &request.host_ids {
        let id = id.parse::<AgentId>();
        hosts.push(id.map_err(|error| {
            let message = format!("{error}; `musterctl hosts show NAME` shows the id of a host");
            invalid(Reason::HostNotFound, "host_ids", message)
        })?);
    }
    controls.sort_unstable();
    controls.dedup();
    hosts.sort_unstable();
    hosts.dedup();
    let controls: Option<Vec<ControlId>> = Some(controls).filter(|controls| !controls.is_empty());
    Ok(Parameters { as_of, log_size, controls, hosts: Some(hosts).filter(|hosts| !hosts.is_empty()) })
}

fn refused(error: make::Error) -> Status {
    match error {
        make::Error::Host(_) => invalid(Reason::HostNotFound, "host_ids", error.to_string()),
        make::Error::Archive(archive::Error::TooLarge) => refuse(
            Reason::SnapshotTooLarge,
            format!("a snapshot has at most {} bytes; ask for fewer hosts at a time", archive::BYTES),
        ),
        make::Error::Catalogue(_) => invalid(Reason::LogPositionInvalid, "log_size", error.to_string()),
        make::Error::Log(_) | make::Error::Archive(_) | make::Error::Sign(_) => {
            internal("failed to make a snapshot", &error)
        }
    }
}

#[tonic::async_trait]
impl snapshot_service_server::SnapshotService for SnapshotService {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let who = caller::of(&request)?;
        let record = self.create(&who, request.into_inner()).await?;
        Ok(Response::new(v1::CreateSnapshotResponse { snapshot: Some(record.to_wire()) }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let page =
            Page::parse("snapshots", "", request.page_size, &request.page_token).map_err(|error| match error {
                page::Error::Size => invalid(Reason::PageSizeInvalid, "page_size", error.to_string()),
                page::Error::Token => invalid(Reason::PageTokenInvalid, "page_token", error.to_string()),
            })?;
        let parts = Arc::clone(&self.parts);
        let list = move || parts.store.records().map_err(|error| internal("failed to list snapshots", &error));
        let records = blocking(list).await?;
        let (snapshots, next_page_token) = page.take(records.iter().map(|record| (list_key(record), record.to_wire())));
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots, next_page_token }))
    }

    type DownloadSnapshotStream = ReceiverStream<Result<v1::DownloadSnapshotResponse, Status>>;

    async fn download_snapshot(
        &self,
        request: Request<v1::DownloadSnapshotRequest>,
    ) -> Result<Response<Self::DownloadSnapshotStream>, Status> {
        let who = caller::of(&request)?;
        let id = request.into_inner().id;
        let parts = Arc::clone(&self.parts);
        let (record, mut file) = blocking(move || {
            let record = parts.store.record(&id).ok_or_else(|| {
                refuse(Reason::SnapshotNotFound, "there is no such snapshot; list them with `musterctl snapshot list`")
            })?;
            let file = parts.store.bytes(&record);
            Ok((record, file.map_err(|error| internal("failed to open a snapshot", &error))?))
        })
        .await?;
        self.export(&who, &record).await?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::task::spawn_blocking(move || {
            loop {
                let message = match chunk(&mut file) {
                    Ok(None) => return,
                    Ok(Some(data)) => Ok(v1::DownloadSnapshotResponse { data }),
                    Err(error) => Err(internal("failed to read a snapshot", &error)),
                };
                let is_last = message.is_err();
                // The reader has gone when nobody takes it.
                if sender.blocking_send(message).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Returns the next bytes of a file, or `None` at its end.
fn chunk(file: &mut std::fs::File) -> io::Result<Option<Vec<u8>>> {
    let mut data = Vec::new();
    file.take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
    Ok((!data.is_empty()).then_some(data))
}

/// Returns the key by which snapshots are in order, newest first.
fn list_key(record: &Record) -> String {
    format!("{:020}-{}", i64::MAX - record.create_time.micros(), record.sha256)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_is_checked_before_anything_is_made() {
        let catalogue = Catalogue::built_in();
        let now: Timestamp = "2026-11-24T04:00:00Z".parse().unwrap();
        let ask = |request: v1::CreateSnapshotRequest| parameters(&request, 7, now, &catalogue);
        let later = Some(now.plus(std::time::Duration::from_micros(1)).to_wire());
        for (request, code) in [
            (v1::CreateSnapshotRequest { as_of_time: later, ..Default::default() }, Code::InvalidArgument),
            (v1::CreateSnapshotRequest { control_ids: vec!["NO-1".to_owned()], ..Default::default() }, Code::NotFound),
            (v1::CreateSnapshotRequest { host_ids: vec!["../etc".to_owned()], ..Default::default() }, Code::NotFound),
        ] {
            assert_eq!(ask(request).unwrap_err().code(), code);
        }
        let control_ids = ["ENC-01", "NO-1\u{1b}"].map(str::to_owned).to_vec();
        let refused = ask(v1::CreateSnapshotRequest { control_ids, ..Default::default() }).unwrap_err();
        assert!(refused.message().starts_with("control_ids: NO-1\\x1b is none"), "{}", refused.message());
        let all = ask(v1::CreateSnapshotRequest::default()).unwrap();
        assert_eq!(all, Parameters { as_of: now, log_size: 7, controls: None, hosts: None });
        let ids = ["ENC-01", "PAT-01", "ENC-01"].map(str::to_owned).to_vec();
        let some = ask(v1::CreateSnapshotRequest { control_ids: ids, ..Default::default() }).unwrap();
        assert_eq!(some.controls.unwrap().len(), 2);
    }

    #[test]
    fn entries_that_do_not_reach_the_instant_are_refused_unless_such_a_snapshot_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("snapshots")).unwrap();
        let key = Key::generate("c1").unwrap();
        let dir = folder.path().join("log");
        Log::create(&dir, &key).unwrap();
        let (log, mut appender) = Log::open(&dir, key).unwrap();
        let second = |seconds| Timestamp::from_seconds(seconds).unwrap();
        for time in [10, 20, 30] {
            let entry = v1::LogEntry { received_time: Some(second(time).to_wire()), entry: None };
            appender.append(&[&prost::Message::encode_to_vec(&entry)]).unwrap();
        }
        appender.commit().unwrap();
        let check = |log_size, time| {
            check_reach(&log, &store, &Parameters { as_of: second(time), log_size, controls: None, hosts: None })
        };
        assert!(check_begun(&log, second(10)).is_ok());
        let refused = check_begun(&log, second(9)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("1970-01-01T00:00:10"), "{}", refused.message());
        assert!(check(3, 1000).is_ok());
        assert!(check(2, 30).is_ok());
        let refused = check(2, 31).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("1970-01-01T00:00:30"), "{}", refused.message());
        let kept = Record { log_size: 2, as_of: second(31), ..sample(1) };
        store.put_record(&kept).unwrap();
        assert!(check(2, 31).is_ok());
        assert!(check(2, 32).is_err());
    }

    #[test]
    fn snapshots_are_listed_newest_first() {
        assert!(list_key(&sample(2)) < list_key(&sample(1)));
    }

    fn sample(second: i64) -> Record {
        Record {
            sha256: Digest::of_bytes(b"x"),
            size_bytes: 1,
            create_time: Timestamp::from_seconds(second).unwrap(),
            as_of: Timestamp::EPOCH,
            log_size: 1,
            hosts: 0,
            actor: String::new(),
        }
    }
}
