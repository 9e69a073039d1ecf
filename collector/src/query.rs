//! Answers `FleetService` over the views: hosts, findings, controls, and verdicts as they change.
//!
//! What a verdict is now is told when it is read: time that passed since it was judged turns it or makes it stale. Nothing here
//! changes anything. Reads run on the blocking pool, one hop each.

mod files;
pub mod filter;
mod host;
pub mod page;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use muster_proto::{
    id::{AgentId, Digest},
    time::{Clock, Timestamp},
    v1::{self, fleet_service_server, watch_verdicts_response::Event},
    words::counted,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    control::{Control, Verdict},
    judge::{Judge, Standing, standings},
    serve::status::{Reason, internal, invalid, refuse},
    views::{HostRow, HostState, Views},
};

pub use files::ChangeState;

use filter::{Field, Filter};
use page::Page;

/// Verdicts that wait for a slow watcher, beside those that the judge keeps for it.
const WATCH_ITEMS: usize = 256;
/// Time between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(30);

const VERDICTS: &[&str] = &["pass", "fail", "unknown", "no_data", "not_applicable"];
const SEVERITIES: &[&str] = &["critical", "high", "medium", "low"];
const STATES: &[&str] = &["enrolled", "active", "frozen", "revoked"];
const CLASSES: &[&str] = &["laptop", "desktop", "server", "vm", "container", ""];

const HOST_FIELDS: &[Field] = &[
    Field::text("id"),
    Field::text("hostname"),
    Field::text("os_id"),
    Field::text("os_version"),
    Field::of("host_class", CLASSES),
    Field::of("state", STATES),
    Field::of("worst_verdict", VERDICTS),
];
const FINDING_FIELDS: &[Field] = &[
    Field::text("host_id"),
    Field::text("hostname"),
    Field::text("control_id"),
    Field::of("verdict", &["fail", "unknown", "no_data"]),
    Field::of("severity", SEVERITIES),
];
const CONTROL_FIELDS: &[Field] = &[Field::text("id"), Field::text("family"), Field::of("severity", SEVERITIES)];

/// Who is connected. Liveness, never evidence.
pub trait Liveness: Send + Sync {
    /// Returns whether the agent's stream is open.
    fn connected(&self, agent: AgentId) -> bool;
    /// Returns when something was last heard from it, collector's clock.
    fn last_seen(&self, agent: AgentId) -> Option<Timestamp>;
}

impl Liveness for crate::ingest::Sessions {
    fn connected(&self, agent: AgentId) -> bool {
        Self::connected(self, agent)
    }

    fn last_seen(&self, agent: AgentId) -> Option<Timestamp> {
        Self::last_seen(self, agent)
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct FleetService(Arc<Inner>);

struct Inner {
    collector: String,
    views: Views,
    judge: Judge,
    liveness: Arc<dyn Liveness>,
    clock: Arc<dyn Clock>,
}

/// A host with what each control says of it now.
struct Seen<'a> {
    host: &'a HostRow,
    standings: Vec<(&'a Control, Standing)>,
}

impl FleetService {
    /// Returns the service of the collector that is named `collector`.
    pub fn new(
        collector: &str,
        views: Views,
        judge: Judge,
        liveness: Arc<dyn Liveness>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let collector = collector.to_owned();
        Self(Arc::new(Inner { collector, views, judge, liveness, clock }))
    }

    /// Returns the agent that `text` names: its id, a prefix of at least four digits, or a hostname that one host alone has.
    ///
    /// # Errors
    ///
    /// NOT_FOUND (HOST_NOT_FOUND), INVALID_ARGUMENT (HOST_AMBIGUOUS).
    pub async fn resolve(&self, text: String) -> Result<AgentId, Status> {
        self.read(move |inner| {
            let (_, hosts) = inner.judge.hosts();
            host::resolve(&hosts, &text).map(|host| host.agent.agent)
        })
        .await
    }

    /// Returns whether each change is open, by agent, path and digest of the state that was found.
    ///
    /// # Errors
    ///
    /// INTERNAL.
    pub async fn standings_of_changes(
        &self,
        changes: Vec<(AgentId, String, Digest)>,
    ) -> Result<Vec<ChangeState>, Status> {
        self.read(move |inner| files::standings(inner, &changes)).await
    }

    /// Runs a read of the views away from the runtime's threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || read(&inner)).await {
            Ok(answer) => answer,
            Err(error) => Err(internal("reading the views was cut off", &error)),
        }
    }
}

impl Inner {
    fn see<'a>(&'a self, host: &'a HostRow, now: Timestamp) -> Seen<'a> {
        Seen { host, standings: standings(self.judge.catalogue().controls(), host, now) }
    }

    /// Returns the counts of each control over the hosts that are not revoked, by control id.
    fn counts(&self, hosts: &[Arc<HostRow>], now: Timestamp) -> BTreeMap<&str, v1::VerdictCounts> {
        let mut counts: BTreeMap<&str, v1::VerdictCounts> = self
            .judge
            .catalogue()
            .controls()
            .map(|control| (control.id.as_str(), v1::VerdictCounts::default()))
            .collect();
        for host in hosts.iter().filter(|host| host.agent.state != HostState::Revoked) {
            for (control, standing) in self.see(host, now).standings {
                let Some(counts) = counts.get_mut(control.id.as_str()) else { continue };
                *match standing.verdict {
                    Verdict::Pass => &mut counts.pass,
                    Verdict::Fail => &mut counts.fail,
                    Verdict::Unknown => &mut counts.unknown,
                    Verdict::NoData => &mut counts.no_data,
                    Verdict::NotApplicable => &mut counts.not_applicable,
                } += 1;
            }
        }
        counts
    }

    fn summary(control: &Control, counts: Option<&v1::VerdictCounts>) -> v1::ControlSummary {
        v1::ControlSummary {
            control_id: control.id.to_string(),
            title: control.title.clone(),
            severity: control.severity.to_wire().into(),
            counts: Some(counts.copied().unwrap_or_default()),
            family: control.family.clone(),
        }
    }

    fn host_verdict(&self, host: &HostRow, control: &Control, standing: &Standing) -> v1::HostVerdict {
        let indexes = crate::judge::log_indexes(control, &host.facts, &host.agent.looks());
        let id = host.agent.agent;
        host::verdict(id, &host.agent.hostname, control, standing, indexes, self.judge.catalogue().version())
    }

    /// Returns every current verdict of hosts that are not revoked.
    fn all_verdicts(&self) -> Result<Vec<v1::HostVerdict>, Status> {
        let ((_, hosts), now) = (self.judge.hosts(), self.clock.now());
        let mut verdicts = Vec::new();
        for host in hosts.iter().filter(|host| host.agent.state != HostState::Revoked) {
            for (control, standing) in self.see(host, now).standings {
                verdicts.push(self.host_verdict(host, control, &standing));
            }
        }
        Ok(verdicts)
    }
}

fn parse_filter(text: &str, fields: &'static [Field]) -> Result<Filter, Status> {
    Filter::parse(text, fields).map_err(|error| invalid(Reason::FilterInvalid, "filter", error.to_string()))
}

/// Returns the page that a request of the list `list` asks for.
///
/// # Errors
///
/// INVALID_ARGUMENT (PAGE_SIZE_INVALID, PAGE_TOKEN_INVALID).
pub(crate) fn parse_page<'a>(list: &'static str, filter: &'a str, size: i32, token: &str) -> Result<Page<'a>, Status> {
    Page::parse(list, filter, size, token).map_err(|error| match error {
        page::Error::Size => invalid(Reason::PageSizeInvalid, "page_size", error.to_string()),
        page::Error::Token => invalid(Reason::PageTokenInvalid, "page_token", error.to_string()),
    })
}

#[tonic::async_trait]
impl fleet_service_server::FleetService for FleetService {
    async fn get_fleet_summary(
        &self,
        _request: Request<v1::GetFleetSummaryRequest>,
    ) -> Result<Response<v1::GetFleetSummaryResponse>, Status> {
        let answer = self.read(|inner| {
            let ((log_size, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let of_state = |state| hosts.iter().filter(|host| host.agent.state == state).count() as u64;
            let counts = inner.counts(&hosts, now);
            let connected = hosts
                .iter()
                .filter(|host| host.agent.state != HostState::Revoked && inner.liveness.connected(host.agent.agent));
            Ok(v1::GetFleetSummaryResponse {
                collector: inner.collector.clone(),
                read_time: Some(now.to_wire()),
                log_size,
                hosts: hosts.len() as u64 - of_state(HostState::Revoked),
                connected_hosts: connected.count() as u64,
                states: HostState::ALL
                    .into_iter()
                    .map(|state| v1::HostStateCount { state: state.to_wire().into(), hosts: of_state(state) })
                    .collect(),
                controls: inner
                    .judge
                    .catalogue()
                    .controls()
                    .map(|control| Inner::summary(control, counts.get(control.id.as_str())))
                    .collect(),
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let request = request.into_inner();
        let answer = self.read(move |inner| {
            let filter = parse_filter(&request.filter, HOST_FIELDS)?;
            let page = parse_page("hosts", &request.filter, request.page_size, &request.page_token)?;
            let ((_, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let hosts = hosts.iter().filter_map(|row| {
                let seen = inner.see(row, now);
                let host = host::host(&seen, inner.liveness.as_ref());
                let worst = host::worst(&seen);
                filter.matches(|field| host::field(&host, row, worst, field)).then(|| (host.id.clone(), host))
            });
            let (hosts, next_page_token) = page.take(hosts);
            Ok(v1::ListHostsResponse { hosts, next_page_token })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Result<Response<v1::GetHostResponse>, Status> {
        let text = request.into_inner().host;
        let answer = self.read(move |inner| {
            let ((_, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let row = host::resolve(&hosts, &text)?;
            let seen = inner.see(row, now);
            Ok(v1::GetHostResponse {
                host: Some(host::host(&seen, inner.liveness.as_ref())),
                facts: host::facts(&inner.views, row, inner.judge.catalogue())
                    .map_err(|error| internal("failed to read the views", &error))?,
                verdicts: seen
                    .standings
                    .iter()
                    .map(|(control, standing)| inner.host_verdict(row, control, standing))
                    .collect(),
                gaps: host::gaps(&inner.views, row.agent.agent)
                    .map_err(|error| internal("failed to read the views", &error))?,
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_findings(
        &self,
        request: Request<v1::ListFindingsRequest>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        let request = request.into_inner();
        let answer = self.read(move |inner| {
            let filter = parse_filter(&request.filter, FINDING_FIELDS)?;
            let page = parse_page("findings", &request.filter, request.page_size, &request.page_token)?;
            let ((_, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let mut found = BTreeMap::new();
            for row in hosts.iter().filter(|host| host.agent.state != HostState::Revoked) {
                for (control, standing) in inner.see(row, now).standings {
                    if matches!(standing.verdict, Verdict::Pass | Verdict::NotApplicable) {
                        continue;
                    }
                    let id = row.agent.agent.to_string();
                    if filter.matches(|field| host::finding_field(&id, row, control, standing.verdict, field)) {
                        let key = format!("{} {} {id}", control.severity as u8, control.id);
                        found.insert(key, (row, control, standing));
                    }
                }
            }
            let (findings, next_page_token) = page.take(found.into_iter());
            let findings = findings
                .into_iter()
                .map(|(row, control, standing)| inner.host_verdict(row, control, &standing))
                .collect();
            Ok(v1::ListFindingsResponse { findings, next_page_token })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_controls(
        &self,
        request: Request<v1::ListControlsRequest>,
    ) -> Result<Response<v1::ListControlsResponse>, Status> {
        let request = request.into_inner();
        let answer = self.read(move |inner| {
            let filter = parse_filter(&request.filter, CONTROL_FIELDS)?;
            let page = parse_page("controls", &request.filter, request.page_size, &request.page_token)?;
            let ((_, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let counts = inner.counts(&hosts, now);
            let controls = inner.judge.catalogue().controls().filter(|control| {
                filter.matches(|field| match field {
                    "id" => control.id.as_str().into(),
                    "family" => control.family.as_str().into(),
                    _ => control.severity.as_str().into(),
                })
            });
            let controls = controls
                .map(|control| (control.id.to_string(), Inner::summary(control, counts.get(control.id.as_str()))));
            let (controls, next_page_token) = page.take(controls);
            Ok(v1::ListControlsResponse { controls, next_page_token })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_control(
        &self,
        request: Request<v1::GetControlRequest>,
    ) -> Result<Response<v1::GetControlResponse>, Status> {
        let id = request.into_inner().control_id;
        let answer = self.read(move |inner| {
            let catalogue = inner.judge.catalogue();
            let control = catalogue.control(&id).ok_or_else(|| {
                refuse(Reason::ControlNotFound, format!("there is no control `{}`; list them for their ids", name(&id)))
            })?;
            let ((_, hosts), now) = (inner.judge.hosts(), inner.clock.now());
            let counts = inner.counts(&hosts, now);
            Ok(host::control(control, Inner::summary(control, counts.get(control.id.as_str())), catalogue.version()))
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_file_changes(
        &self,
        request: Request<v1::ListFileChangesRequest>,
    ) -> Result<Response<v1::ListFileChangesResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.read(move |inner| files::changes(inner, &request)).await?))
    }

    async fn list_explained_changes(
        &self,
        request: Request<v1::ListExplainedChangesRequest>,
    ) -> Result<Response<v1::ListExplainedChangesResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.read(move |inner| files::explained(inner, &request)).await?))
    }

    async fn list_file_baselines(
        &self,
        request: Request<v1::ListFileBaselinesRequest>,
    ) -> Result<Response<v1::ListFileBaselinesResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.read(move |inner| files::baselines(inner, &request)).await?))
    }

    async fn list_file_holders(
        &self,
        request: Request<v1::ListFileHoldersRequest>,
    ) -> Result<Response<v1::ListFileHoldersResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.read(move |inner| files::holders(inner, &request)).await?))
    }

    type WatchVerdictsStream = ReceiverStream<Result<v1::WatchVerdictsResponse, Status>>;

    async fn watch_verdicts(
        &self,
        request: Request<v1::WatchVerdictsRequest>,
    ) -> Result<Response<Self::WatchVerdictsStream>, Status> {
        // Before the initial verdicts are read, so that no change falls between.
        let changes = self.0.judge.changes();
        let initial = match request.into_inner().send_initial {
            true => Some(self.read(Inner::all_verdicts).await?),
            false => None,
        };
        let (sender, receiver) = mpsc::channel(WATCH_ITEMS);
        tokio::spawn(watch(Arc::clone(&self.0), changes, initial, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Watcher = mpsc::Sender<Result<v1::WatchVerdictsResponse, Status>>;

/// Sends verdicts to a watcher until it goes away, falls behind, or the judge ends.
async fn watch(
    inner: Arc<Inner>,
    mut changes: broadcast::Receiver<Arc<crate::judge::Change>>,
    initial: Option<Vec<v1::HostVerdict>>,
    watcher: Watcher,
) {
    let event = |event| Ok(v1::WatchVerdictsResponse { event: Some(event) });
    let heartbeat = || {
        let log_size = *inner.judge.applied().borrow();
        Event::Heartbeat(v1::WatchHeartbeat { time: Some(inner.clock.now().to_wire()), log_size })
    };
    if let Some(initial) = initial {
        for verdict in initial {
            let change = v1::VerdictChange { verdict: Some(verdict), previous: 0, initial: true };
            if watcher.send(event(Event::Change(change))).await.is_err() {
                return;
            }
        }
        if watcher.send(event(heartbeat())).await.is_err() {
            return;
        }
    }
    let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        let next = tokio::select! {
            () = watcher.closed() => return,
            _ = beats.tick() => event(heartbeat()),
            change = changes.recv() => match change {
                Ok(change) => match inner.change(&change) {
                    Some(change) => event(Event::Change(change)),
                    None => continue,
                },
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let message = format!("the reader fell behind by {}; list, and watch again", counted(missed, "change"));
                    drop(watcher.send(Err(refuse(Reason::WatchLagged, message))).await);
                    return;
                }
            },
        };
        if watcher.send(next).await.is_err() {
            return;
        }
    }
}

impl Inner {
    fn change(&self, change: &crate::judge::Change) -> Option<v1::VerdictChange> {
        let catalogue = self.judge.catalogue();
        let control = catalogue.control(&change.control)?;
        let verdict = host::verdict(
            change.agent,
            &change.hostname,
            control,
            &change.standing,
            change.log_indexes.clone(),
            catalogue.version(),
        );
        let previous = change.previous.map_or(v1::Verdict::Unspecified, Verdict::to_wire);
        Some(v1::VerdictChange { verdict: Some(verdict), previous: previous.into(), initial: false })
    }
}

/// Returns a caller's text as it may stand in a message.
fn name(text: &str) -> String {
    muster_proto::fact::Text::cut(text, 64).as_str().to_owned()
}

#[cfg(test)]
mod tests;
