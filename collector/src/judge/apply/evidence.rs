//! What an agent is judged by: its facts as the batch has them so far, and what a report brought of them.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{fact::Subject, id::AgentId, time::Timestamp};

use super::{Agent, Cache, Place};
use crate::{
    control::{Acknowledged, Evidence, Observed, Reporting},
    views::{Batch, Error, confirmation},
};

/// What a verdict's beginning is told by: the observations that a report brought.
pub(super) struct Brought {
    /// By subject that changed: when it was observed, host's clock.
    pub subjects: BTreeMap<Subject, Timestamp>,
    /// When the report was sealed.
    pub report: Timestamp,
}

/// Returns when the subjects of a report that `changed` were observed.
pub(super) fn changed_at(
    cache: &mut Cache,
    batch: &Batch<'_>,
    id: AgentId,
    changed: &[Subject],
    place: &Place,
) -> Result<Brought, Error> {
    let mut subjects = BTreeMap::new();
    if !changed.is_empty() {
        let set = cache.get(batch, id)?;
        for subject in changed {
            subjects.extend(set.facts().get(subject).map(|held| (*subject, held.observed)));
        }
    }
    Ok(Brought { subjects, report: place.observed })
}

/// Returns the evidence about an agent, as far as `subjects` and the class of the host need it.
pub(super) fn evidence(
    cache: &mut Cache,
    batch: &Batch<'_>,
    agent: &Agent,
    subjects: &BTreeSet<Subject>,
) -> Result<Evidence, Error> {
    let reporting = Reporting {
        last_received: agent.host.agent.run.map(|run| run.last_time),
        skew_millis: agent.host.agent.run.map(|run| run.skew_millis).unwrap_or_default(),
    };
    if let Some(broken) = &agent.host.agent.broken {
        return Ok(Evidence::broken(agent.host.agent.agent, reporting, &broken.detail, broken.time));
    }
    let looks = agent.host.agent.looks();
    let mut facts = BTreeMap::new();
    if !agent.host.facts.is_empty() {
        let set = cache.get(batch, agent.host.agent.agent)?;
        for (subject, row) in agent.host.facts.iter() {
            if (*subject == Subject::System || subjects.contains(subject))
                && let Some(held) = set.facts().get(subject)
            {
                let (confirmed, _) = confirmation(row, &looks);
                facts.insert(*subject, Observed::decode(*subject, &held.bytes, confirmed));
            }
        }
    }
    let acknowledged = match facts.contains_key(&Subject::FileIntegrity) {
        true => batch.acknowledged(agent.host.agent.agent)?,
        false => Acknowledged::default(),
    };
    Ok(Evidence { host: agent.host.agent.agent, facts, reporting, acknowledged })
}
