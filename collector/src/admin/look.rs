//! Asks agents to look now, and tells each outcome as it is known.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muster_proto::{
    id::AgentId,
    v1::{self, LookOutcome, act::Act, directive::Directive},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Inner;
use crate::{
    judge::Answers,
    members::{Agent, AgentState},
    serve::{
        caller::Calling,
        status::{self, Reason},
    },
};

/// Seconds to wait: when nothing is said, and at most.
const TIMEOUT: (u32, u32) = (30, 600);
/// Agent ids that one entry of the log names, at most.
const IDS_PER_ENTRY: usize = 2048;
/// Outcomes that wait for the caller.
const OUTCOMES: usize = 64;

type Outcomes = mpsc::Sender<Result<v1::LookNowResponse, Status>>;

impl Inner {
    pub(super) async fn look_now(
        &self,
        who: &Calling,
        request: v1::LookNowRequest,
    ) -> Result<ReceiverStream<Result<v1::LookNowResponse, Status>>, Status> {
        let seconds = match request.timeout_seconds {
            0 => TIMEOUT.0,
            seconds if seconds <= TIMEOUT.1 => seconds,
            _ => {
                let message = format!("at most {}; 0 means {}", TIMEOUT.1, TIMEOUT.0);
                return Err(status::invalid(Reason::TimeoutInvalid, "timeout_seconds", message));
            }
        };
        let mut agents = Vec::with_capacity(request.hosts.len());
        for host in &request.hosts {
            agents.push(self.find_host(host).await?);
        }
        let is_all = agents.is_empty();
        if is_all {
            agents = self.members.agents();
            agents.retain(|agent| agent.state == AgentState::Enrolled);
        }
        agents.sort_by_key(|agent| agent.id);
        agents.dedup_by_key(|agent| agent.id);
        let named: Vec<Vec<u8>> =
            if is_all { Vec::new() } else { agents.iter().map(|agent| agent.id.as_bytes().to_vec()).collect() };
        let chunks = if is_all { vec![Vec::new()] } else { named.chunks(IDS_PER_ENTRY).map(<[_]>::to_vec).collect() };
        for agent_ids in chunks {
            self.acts.record(who, Act::LookRequested(v1::LookRequested { agent_ids })).await?;
        }

        let start = Instant::now();
        let mut answers = self.judge.answers();
        let mut asked = HashMap::new();
        let mut absent = Vec::new();
        let mut silent = Vec::new();
        for agent in agents {
            use crate::ingest::sessions::Error;
            let direct = || self.sessions.direct(agent.id, Directive::LookNow(v1::LookNow {}));
            match answers.ask(agent.id, direct) {
                Ok(directive) => drop(asked.insert((agent.id, directive), agent)),
                Err(Error::NotConnected) => absent.push(agent),
                // It does not take what it was given before: it will not answer in time, and may still.
                Err(Error::Busy) => silent.push(agent),
            }
        }
        let (sender, receiver) = mpsc::channel(OUTCOMES);
        let deadline = start + Duration::from_secs(seconds.into());
        tokio::spawn(async move {
            for agent in absent {
                tell(&sender, &agent, LookOutcome::NotConnected, start).await?;
            }
            wait(&sender, answers, &mut asked, start, deadline).await?;
            let mut rest: Vec<_> = asked.into_values().chain(silent).collect();
            rest.sort_by_key(|agent| agent.id);
            for agent in rest {
                tell(&sender, &agent, LookOutcome::TimedOut, start).await?;
            }
            Some(())
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// Tells outcomes as they come until all are told or it is too late; `None` when the caller has gone.
async fn wait(
    sender: &Outcomes,
    mut answers: Answers,
    asked: &mut HashMap<(AgentId, u64), Arc<Agent>>,
    start: Instant,
    deadline: Instant,
) -> Option<()> {
    while !asked.is_empty() {
        let answer = tokio::select! {
            answer = timeout_at(deadline, answers.next()) => answer,
            () = sender.closed() => return None,
        };
        match answer {
            Ok(Some(answer)) => {
                if let Some(agent) = asked.remove(&answer) {
                    tell(sender, &agent, LookOutcome::Done, start).await?;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    Some(())
}

async fn tell(sender: &Outcomes, agent: &Agent, outcome: LookOutcome, start: Instant) -> Option<()> {
    let response = v1::LookNowResponse {
        host_id: agent.id.to_string(),
        hostname: agent.hostname.clone(),
        outcome: outcome.into(),
        elapsed_millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    sender.send(Ok(response)).await.ok()
}
