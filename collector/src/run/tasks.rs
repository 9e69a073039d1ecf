//! What goes on beside the calls as long as the collector runs. A task that ends returns what it was, as none should.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muster_proto::{
    id::AgentId,
    time::{Clock, Timestamp},
    v1::{self, directive::Directive, log_entry::Entry},
};
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior},
};

use super::INGEST;
use crate::{
    acts::Acts,
    inbox::{self, Inbox},
    ingest::Sessions,
    judge::Judge,
    pki::Authority,
    profile::Profiles,
    serve::{access::Access, status::chain, tls::ServerCertificate},
};

/// How often it is looked whether an agent should be given another profile.
const HAND_OUT: Duration = Duration::from_secs(2);
/// An agent that has not taken a profile after this long is given it again.
const HAND_OUT_AGAIN: Duration = Duration::from_secs(600);
/// How long a read waits for others before all of them make one entry.
const ACCESS_DELAY: Duration = Duration::from_secs(1);

/// Asks agents whose reports do not add up for every subject again.
pub(super) async fn resync(judge: Judge, sessions: Sessions) -> String {
    let mut agents = judge.resync();
    loop {
        match agents.recv().await {
            Ok(agent) => {
                // One that is not connected, or that does not listen, is asked again after its next report.
                if let Err(error) = sessions.direct(agent, Directive::Resync(v1::Resync {})) {
                    tracing::debug!(%agent, %error, "failed to ask for a resync");
                }
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                tracing::warn!(count, "requests for a resync were passed over");
            }
            Err(broadcast::error::RecvError::Closed) => return "the judge".to_owned(),
        }
    }
}

/// Gives agents the profile of their class as soon as they are connected and as long as their reports say that they have an older one.
/// One that does not take it is given it again, seldom.
pub(super) async fn hand_out(profiles: Profiles, judge: Judge, sessions: Sessions) -> String {
    let mut given: HashMap<AgentId, Instant> = HashMap::new();
    let mut tick = tokio::time::interval(HAND_OUT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        given.retain(|_, at| now.duration_since(*at) < HAND_OUT_AGAIN);
        for host in judge.hosts().1 {
            let agent = host.agent.agent;
            let Some(profile) = profiles.for_agent(&host.agent) else { continue };
            if !sessions.connected(agent) || given.contains_key(&agent) {
                continue;
            }
            match sessions.direct(agent, Directive::Profile(profile.clone())) {
                Ok(_) => drop(given.insert(agent, now)),
                // It is given the profile at a later round.
                Err(error) => tracing::debug!(%agent, %error, "failed to give a profile"),
            }
        }
    }
}

/// Replaces the collector's own certificate at half of its life, for connections from then on.
pub(super) async fn renew_server_certificate(
    authority: Arc<Authority>,
    certificate: Arc<ServerCertificate>,
    names: Vec<String>,
    mut renew: Timestamp,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
) -> String {
    /// How often the wall clock is looked at, and how soon a failure is tried again.
    const LOOK: Duration = Duration::from_secs(60);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = clock.now();
        if now < renew {
            continue;
        }
        match authority.issue_server(&names, now, lifetime) {
            Ok((key, issued)) => {
                certificate.replace(key);
                renew = issued.renew;
                tracing::info!(expires = %issued.expires, "renewed the collector's certificate");
            }
            Err(error) => tracing::error!(error = %chain(&error), "failed to renew the collector's certificate"),
        }
    }
}

/// Writes what was read into the log, soon after it was.
pub(super) async fn write_access(access: Access, acts: Acts) -> String {
    loop {
        access.filled().await;
        tokio::time::sleep(ACCESS_DELAY).await;
        append_access(&access, &acts).await;
    }
}

pub(super) async fn append_access(access: &Access, acts: &Acts) {
    for taken in access.take() {
        if let Err(error) = acts.append(Entry::Access(taken.summary())).await {
            tracing::error!(%error, "failed to note reads in the evidence log; they are counted on");
            access.give_back(taken);
        }
    }
}

/// Says by the health of the agents' service whether the inbox takes reports. Ends when it never will again.
pub(super) async fn tell_health(inbox: Inbox, health: tonic_health::server::HealthReporter) -> String {
    use tonic_health::ServingStatus;
    let mut standing = inbox.standing();
    loop {
        let now = *standing.borrow_and_update();
        let status = match now {
            inbox::Standing::Open => ServingStatus::Serving,
            inbox::Standing::Broken | inbox::Standing::Closed | inbox::Standing::Dead => ServingStatus::NotServing,
        };
        health.set_service_status(INGEST, status).await;
        // The inbox outlives its watchers, so that the channel never closes.
        if now == inbox::Standing::Dead || standing.changed().await.is_err() {
            return "the inbox, whose thread panicked".to_owned();
        }
    }
}
