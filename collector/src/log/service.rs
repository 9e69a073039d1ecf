//! Answers `LogService`: the newest checkpoint, entries and proofs. A thin shell over [`Log`].

use muster_proto::{
    id::Digest,
    v1::{self, log_service_server},
};
use tonic::{Request, Response, Status};

use super::{Checkpoint, Error, Log};
use crate::serve::status::{Reason, internal, invalid, refuse};

/// The service.
#[derive(Clone)]
pub struct LogService {
    log: Log,
}

impl LogService {
    /// Returns the service of `log`.
    pub fn new(log: Log) -> Self {
        Self { log }
    }

    fn newest(&self) -> Result<Checkpoint, Status> {
        self.log
            .checkpoint()
            .ok_or_else(|| refuse(Reason::LogEmpty, "the log is empty; ask again after a first report"))
    }

    /// Runs a read of the disk away from the runtime's threads.
    async fn read<T: Send + 'static>(
        &self,
        field: &'static str,
        read: impl FnOnce(&Log) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let log = self.log.clone();
        let answer = tokio::task::spawn_blocking(move || read(&log)).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error @ Error::Position { .. })) => {
                Err(invalid(Reason::LogPositionInvalid, field, error.to_string()))
            }
            Ok(Err(error)) => Err(internal("failed to read the log", &error)),
            Err(error) => Err(internal("reading the log was cut off", &error)),
        }
    }
}

#[tonic::async_trait]
impl log_service_server::LogService for LogService {
    async fn get_checkpoint(
        &self,
        _request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let checkpoint = self.newest()?.note.to_vec();
        Ok(Response::new(v1::GetCheckpointResponse { checkpoint, log_key: self.log.key().to_owned() }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        let newest = self.newest()?;
        let v1::GetInclusionProofRequest { index, log_size } = request.into_inner();
        let log_size = if log_size == 0 { newest.size } else { log_size };
        let prove = move |log: &Log| Ok((log.inclusion_proof(index, log_size)?, log.entry(index)?));
        let (hashes, entry) = self.read("index", prove).await?;
        let (hashes, checkpoint) = (to_wire(hashes), newest.note.to_vec());
        Ok(Response::new(v1::GetInclusionProofResponse { entry, log_size, hashes, checkpoint }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        let newest = self.newest()?;
        let v1::GetConsistencyProofRequest { old_size, new_size } = request.into_inner();
        if old_size == 0 {
            return Err(invalid(Reason::LogPositionInvalid, "old_size", "must be at least 1"));
        }
        let new_size = if new_size == 0 { newest.size } else { new_size };
        let hashes = self.read("old_size", move |log| log.consistency_proof(old_size, new_size)).await?;
        let (hashes, checkpoint) = (to_wire(hashes), newest.note.to_vec());
        Ok(Response::new(v1::GetConsistencyProofResponse { new_size, hashes, checkpoint }))
    }
}

fn to_wire(hashes: Vec<Digest>) -> Vec<Vec<u8>> {
    hashes.into_iter().map(|hash| hash.as_bytes().to_vec()).collect()
}
