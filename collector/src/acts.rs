//! Writes into the evidence log what people and hosts do: each change is durable there before it takes effect, because the
//! allow-list follows the log and nothing else.

use std::time::Duration;

use muster_proto::v1::{self, act::Act, log_entry::Entry};
use tonic::Status;

use crate::{
    log::sequencer::{Error, Sequencer},
    serve::{
        caller::Calling,
        status::{self, Reason},
    },
};

/// Writes acts. Cheap to clone.
#[derive(Clone)]
pub struct Acts {
    sequencer: Sequencer,
    fleet: String,
}

impl Acts {
    /// Returns the writer of the collector `fleet`.
    pub fn new(sequencer: Sequencer, fleet: &str) -> Self {
        Self { sequencer, fleet: fleet.to_owned() }
    }

    /// Writes what `who` does, and returns its index when it is durable and has taken effect.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE (BUSY, LOG_STOPPED).
    pub async fn record(&self, who: &Calling, act: Act) -> Result<u64, Status> {
        let act = v1::Act { actor: who.caller.to_string(), credential_serial: who.serial.to_string(), act: Some(act) };
        self.append(Entry::Act(act)).await
    }

    /// Writes what the collector does of its own accord.
    ///
    /// # Errors
    ///
    /// As [`Self::record`].
    pub async fn record_own(&self, act: Act) -> Result<u64, Status> {
        self.append(Entry::Act(own_act(&self.fleet, act))).await
    }

    /// Writes an entry.
    ///
    /// # Errors
    ///
    /// As [`Self::record`].
    pub async fn append(&self, entry: Entry) -> Result<u64, Status> {
        // The sequencer sets the time.
        let entry = v1::LogEntry { received_time: None, entry: Some(entry) };
        self.sequencer.append(entry).await.map_err(|error| match error {
            Error::Busy => status::retry_after(Reason::Busy, error.to_string(), Duration::from_secs(1)),
            Error::Stopped(_) => status::refuse(Reason::LogStopped, error.to_string()),
            Error::TooLong => status::internal("failed to write an entry of the log", &error),
        })
    }
}

/// Returns an act of the collector `fleet` itself.
pub fn own_act(fleet: &str, act: Act) -> v1::Act {
    v1::Act { actor: format!("spiffe://{fleet}/collector"), credential_serial: String::new(), act: Some(act) }
}
