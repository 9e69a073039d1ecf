//! An agent without identity: it waits, says so, and enrols when the enrolment file appears.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use muster_proto::v1;

use super::{Error, Stop, write_status};
use crate::{
    config::Config,
    connect::chain_of,
    enroll,
    identity::{Folder, Identity},
    status::{Phase, Status},
    uplink::Backoff,
};

/// Time between glances at the enrolment file.
const GLANCE: Duration = Duration::from_secs(3);

/// Returns the identity as soon as there is one, or `None` when the agent was asked to stop before.
///
/// # Errors
///
/// When the identity's files are there and not usable.
pub async fn for_identity(
    config: &Config,
    folder: &Folder,
    claim: v1::HostClaim,
    status: &mut Status,
    stop: &mut Stop,
) -> Result<Option<Identity>, Error> {
    let mut backoff = Backoff::default();
    // The file that a person must change before it is worth another try.
    let mut refused: Option<SystemTime> = None;
    loop {
        if let Some(identity) = folder.identity()? {
            status.phase = Phase::Running;
            return Ok(Some(identity));
        }
        let written = modified(&config.enroll_file);
        let mut wait = GLANCE;
        match written {
            None => say(
                config,
                status,
                format!(
                    "not enrolled: run 'muster-agent enroll', or put an enrolment file at {} ('musterctl token create --enroll-file' writes it)",
                    config.enroll_file.display()
                ),
            ),
            Some(_) if written == refused => {}
            Some(_) => {
                let tried = tokio::select! {
                    () = stop.asked() => return Ok(None),
                    tried = try_to_enroll(config, folder, claim.clone()) => tried,
                };
                match tried {
                    Ok(identity) => {
                        tracing::info!(agent = %identity.agent, collector = %identity.collector, "enrolled");
                        continue;
                    }
                    Err(error) => {
                        let text = chain_of(&error);
                        say(config, status, format!("enrolment by {} failed: {text}", config.enroll_file.display()));
                        if error.is_passing() {
                            wait = backoff.failed(super::random(), None).max(GLANCE);
                        } else {
                            refused = written;
                        }
                    }
                }
            }
        }
        tokio::select! {
            () = stop.asked() => return Ok(None),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn try_to_enroll(config: &Config, folder: &Folder, claim: v1::HostClaim) -> Result<Identity, enroll::Error> {
    enroll::enroll(folder, &enroll::Request::of_file(&config.enroll_file)?, claim).await
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Says it once in the log and keeps it in the status.
fn say(config: &Config, status: &mut Status, reason: String) {
    let phase = Phase::Waiting { reason };
    if status.phase != phase {
        if let Phase::Waiting { reason } = &phase {
            tracing::warn!("{reason}");
        }
        status.phase = phase;
        write_status(status, config);
    }
}
