//! One stream of reports, step by step.

use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_proto::v1::{
    self, StreamReportsRequest, ingest_service_client::IngestServiceClient, stream_reports_request as request,
    stream_reports_response as response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use super::{chain::Chain, identity::Identity};
use crate::harness::{PATIENCE, now};

/// What the collector said.
#[derive(Debug)]
pub enum Event {
    /// Reports are durable.
    Durable(v1::Durable),
    /// A report was refused.
    Rejection(v1::Rejection),
    /// Something is to be done.
    Directive(v1::Directive),
    /// The stream has ended; `None` without an error.
    End(Option<Status>),
}

/// An open stream.
#[derive(Debug)]
pub struct Session {
    /// What the collector answered to Hello.
    pub welcome: v1::Welcome,
    steps: mpsc::Sender<StreamReportsRequest>,
    answers: Streaming<v1::StreamReportsResponse>,
    // The connection lives as long as its stream.
    _channel: Channel,
}

impl Session {
    /// Opens a stream on a connection of its own, with the Hello of `chain`.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn open(identity: &Identity, chain: &Chain, nonce: &[u8]) -> Result<Self, Status> {
        Self::open_with(identity, hello(chain, nonce)).await
    }

    /// Opens a stream on a connection of its own, with any Hello.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn open_with(identity: &Identity, hello: v1::Hello) -> Result<Self, Status> {
        let channel = identity.channel().await.map_err(|error| Status::unavailable(describe(&error)))?;
        Self::open_on(channel, hello).await
    }

    /// Opens a stream on `channel`.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn open_on(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (steps, taken) = mpsc::channel(1024);
        let first = StreamReportsRequest { step: Some(request::Step::Hello(hello)) };
        steps.send(first).await.map_err(|_| Status::unavailable("the stream ended"))?;
        let mut client = IngestServiceClient::new(channel.clone());
        let opening = client.stream_reports(ReceiverStream::new(taken));
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let mut answers = opened.map_err(|_| Status::deadline_exceeded("no answer to the call"))??.into_inner();
        let first = tokio::time::timeout(PATIENCE, answers.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no answer to Hello"))??;
        match first.and_then(|answer| answer.step) {
            Some(response::Step::Welcome(welcome)) => Ok(Self { welcome: *welcome, steps, answers, _channel: channel }),
            other => Err(Status::internal(format!("the first answer is not Welcome but {other:?}"))),
        }
    }

    /// Sends a report. An ended stream shows at the next [`Session::next`].
    pub async fn send(&self, sealed: v1::SealedReport) {
        self.send_step(report_step(sealed)).await;
    }

    /// Sends any step. An ended stream shows at the next [`Session::next`].
    pub async fn send_step(&self, step: StreamReportsRequest) {
        // The receiver is gone only when the stream has ended, which its answers tell with the cause.
        let _ = self.steps.send(step).await;
    }

    /// Returns a way to send that does not wait for who reads the answers.
    pub fn sender(&self) -> mpsc::Sender<StreamReportsRequest> {
        self.steps.clone()
    }

    /// Returns the next thing that the collector says.
    ///
    /// # Errors
    ///
    /// When it says nothing for [`PATIENCE`], or something that is not of the contract.
    pub async fn next(&mut self) -> anyhow::Result<Event> {
        self.next_within(PATIENCE).await
    }

    /// Returns the next thing that the collector says within `limit`.
    ///
    /// # Errors
    ///
    /// When it says nothing, or something that is not of the contract.
    pub async fn next_within(&mut self, limit: Duration) -> anyhow::Result<Event> {
        let answer = tokio::time::timeout(limit, self.answers.message()).await;
        Ok(match answer.with_context(|| format!("the collector said nothing for {limit:?}"))? {
            Err(status) => Event::End(Some(status)),
            Ok(None) => Event::End(None),
            Ok(Some(answer)) => match answer.step.context("an answer without a step")? {
                response::Step::Welcome(_) => bail!("a second Welcome"),
                response::Step::Durable(durable) => Event::Durable(durable),
                response::Step::Rejection(rejection) => Event::Rejection(rejection),
                response::Step::Directive(directive) => Event::Directive(directive),
            },
        })
    }

    /// Waits until reports up to `sequence` are durable, and returns what covers them.
    ///
    /// # Errors
    ///
    /// When the stream ends or a report is refused before.
    pub async fn durable_through(&mut self, sequence: u64) -> anyhow::Result<v1::Durable> {
        loop {
            match self.next().await? {
                Event::Durable(durable) if durable.through_sequence >= sequence => return Ok(durable),
                Event::Durable(_) | Event::Directive(_) => {}
                other => bail!("waited for {sequence} to be durable, got {other:?}"),
            }
        }
    }

    /// Waits for the next refusal.
    ///
    /// # Errors
    ///
    /// When the stream ends before.
    pub async fn rejection(&mut self) -> anyhow::Result<v1::Rejection> {
        loop {
            match self.next().await? {
                Event::Rejection(rejection) => return Ok(rejection),
                Event::Durable(_) | Event::Directive(_) => {}
                Event::End(status) => bail!("waited for a refusal, the stream ended: {status:?}"),
            }
        }
    }

    /// Waits for the end of the stream, and returns its status.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn end(&mut self, limit: Duration) -> anyhow::Result<Option<Status>> {
        let read_until_end = async {
            loop {
                if let Event::End(status) = self.next().await? {
                    return anyhow::Ok(status);
                }
            }
        };
        tokio::time::timeout(limit, read_until_end).await.with_context(|| format!("no end within {limit:?}"))?
    }
}

/// Returns the step that carries a report.
pub fn report_step(sealed: v1::SealedReport) -> StreamReportsRequest {
    StreamReportsRequest { step: Some(request::Step::Report(sealed)) }
}

/// Returns the Hello of `chain`, as it should be.
pub fn hello(chain: &Chain, nonce: &[u8]) -> v1::Hello {
    v1::Hello {
        contract_version: 1,
        agent_version: "0.1.0".to_owned(),
        epoch: chain.epoch.as_bytes().to_vec(),
        next_sequence: chain.next.number(),
        head_digest: chain.head.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
        last_session_nonce: nonce.to_vec(),
        last_checkpoint: chain.checkpoint.as_ref().map(muster_proto::report::CheckpointRef::to_wire),
        host_time: Some(now().to_wire()),
        proven_checkpoint: None,
    }
}

/// Returns code and reason of a status, such as `PermissionDenied` and `AGENT_REVOKED`.
pub fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
