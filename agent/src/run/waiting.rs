//! An agent without identity: it waits, says so, and enrols when the enrolment file appears.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use muster_proto::v1;
use tokio::time::Instant;

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
/// A file that was refused is tried again after about this, although nothing changed here: what was wrong may be elsewhere.
const AGAIN: Duration = Duration::from_secs(300);

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
    // The file that was refused as it was, and when it is tried again even so.
    let mut refused: Option<(Seen, Instant)> = None;
    loop {
        if let Some(identity) = folder.identity()? {
            status.phase = Phase::Running;
            return Ok(Some(identity));
        }
        let seen = Seen::of(&config.enroll_file);
        let mut wait = GLANCE;
        match seen {
            None => say(
                config,
                status,
                format!(
                    "not enrolled: run 'muster-agent enroll', or put an enrolment file at {} ('musterctl token create --enroll-file' writes it)",
                    config.enroll_file.display()
                ),
            ),
            Some(seen) if refused.is_some_and(|(before, again)| before == seen && Instant::now() < again) => {}
            Some(seen) => {
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
                            refused = Some((seen, Instant::now() + AGAIN.mul_f64(0.75 + 0.5 * super::random())));
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

/// What changes of a file when someone mends it: content, mode and owner all move the time of change (inode(7)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    inode: u64,
    changed: (i64, i64),
    len: u64,
}

impl Seen {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()), len: file.len() })
    }
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
