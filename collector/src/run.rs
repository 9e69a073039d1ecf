//! Assembles the collector, runs it, and stops it. The order of starting and stopping is written here and nowhere else.

mod tasks;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use muster_proto::{
    id::{AgentId, Digest, Epoch, ReportSeq},
    limits,
    time::{Clock, SystemClock, Timestamp},
    v1::{
        admin_service_server::AdminServiceServer, enrollment_service_server::EnrollmentServiceServer,
        fleet_service_server::FleetServiceServer, ingest_service_server::IngestServiceServer, log_entry::Entry,
        log_service_server::LogServiceServer, snapshot_service_server::SnapshotServiceServer,
    },
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    acts::Acts,
    admin::{self, AdminService},
    config::{self, Config},
    control::{self, Catalogue},
    data::Data,
    enroll::EnrollmentService,
    inbox::{self, Inbox},
    ingest::{self, Ingest, KnownHead, Sessions},
    judge,
    log::{
        self, Key, Log,
        sequencer::{self, Sequencer},
        service::LogService,
    },
    members::{self, Members},
    metrics,
    pki::{self, Authority},
    profile::{self, Profiles},
    query::FleetService,
    serve::{
        self, Listener,
        access::Access,
        caller::Gate,
        status::chain,
        tls::{self, ServerCertificate, Tls},
    },
    snapshot::{self, service::SnapshotService},
    views::{self, Views},
};

/// How long open calls may go on after the stop.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the log may take to write what it has, after that.
const FINISH: Duration = Duration::from_millis(2500);
/// Name of the service of agents, for health.
const INGEST: &str = "muster.v1.IngestService";
/// How long before the CA's end the collector warns.
const CA_WARNING: Duration = Duration::from_secs(90 * 86_400);
/// Bytes of a request from a person or program: lists of hosts fit.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The collector cannot start, or ended although it was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] pki::Error),
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log's key.
    #[error("the log's key in {} cannot be used", path.display())]
    LogKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: log::NoteError,
    },
    /// The settings name another collector than the log.
    #[error(
        "the log in {} is that of collector {log}, and the settings name {config}; set name = \"{log}\"", path.display()
    )]
    Name {
        /// The data folder.
        path: PathBuf,
        /// Name of the log.
        log: String,
        /// Name in the settings.
        config: String,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The inbox.
    #[error(transparent)]
    Inbox(#[from] inbox::Error),
    /// The log's writer.
    #[error("failed to start the log's writer")]
    Sequencer(#[from] sequencer::Error),
    /// The views.
    #[error(transparent)]
    Views(#[from] views::Error),
    /// The folder of snapshots.
    #[error(transparent)]
    Snapshots(#[from] snapshot::store::Error),
    /// The judge.
    #[error(transparent)]
    Judge(#[from] judge::Error),
    /// The log does not take the catalogue's version.
    #[error("failed to write the catalogue's version into the log: {0}")]
    Announce(String),
    /// The profiles.
    #[error("the profiles in {} are refused", path.display())]
    Profiles {
        /// The file.
        path: PathBuf,
        /// Why.
        source: profile::Error,
    },
    /// The catalogue.
    #[error("the catalogue in {} is refused", path.display())]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// Why.
        source: control::Error,
    },
    /// The allow-list.
    #[error("failed to read who may call from the log")]
    Members(#[from] members::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// An address.
    #[error("failed to listen on {address} (setting {key})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The metrics.
    #[error("failed to set up metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Reflection.
    #[error("failed to set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The log stopped.
    #[error(
        "the log has stopped: {0}; nothing was acknowledged since, and a restart takes up from the last checkpoint"
    )]
    LogStopped(String),
    /// Serving ended.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// A task ended that must not.
    #[error("a part of the collector ended: {0}")]
    Task(String),
    /// Signals cannot be heard.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs the collector until it is asked to stop (SIGTERM, SIGINT).
///
/// # Errors
///
/// When it cannot start, or a part of it fails.
pub async fn run(config: Config, data: Data) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    // Before the start, so that no signal is lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    // Starting blocks, for as long as the log is long. Nothing is acknowledged before it is done, so a signal ends it as it stands.
    let starting = tokio::task::spawn_blocking(move || {
        Handle::current().block_on(Collector::start(config, &data, Arc::new(SystemClock)))
    });
    let mut collector = tokio::select! {
        started = starting => started.map_err(|error| Error::Task(format!("the start: {error}")))??,
        _ = terminate.recv() => return stopped_early(),
        _ = interrupt.recv() => return stopped_early(),
    };
    notify(sd_notify::NotifyState::Ready);
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = collector.failed() => Err(error),
    };
    notify(sd_notify::NotifyState::Stopping);
    collector.stop().await;
    outcome
}

fn stopped_early() -> Result<(), Error> {
    tracing::info!("asked to stop while starting: nothing was taken yet");
    notify(sd_notify::NotifyState::Stopping);
    Ok(())
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "failed to notify the service manager");
    }
}

/// A collector that runs.
pub struct Collector {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    stop: CancellationToken,
    cut: CancellationToken,
    served: JoinHandle<Result<(), serve::Error>>,
    tasks: JoinSet<String>,
    access: Access,
    acts: Acts,
    log: Log,
    sessions: Sessions,
    sequencer: Sequencer,
    inbox: Inbox,
    health: tonic_health::server::HealthReporter,
    judging: CancellationToken,
    judged: JoinHandle<()>,
}

impl Collector {
    /// Starts a collector. When this returns, it listens.
    ///
    /// # Errors
    ///
    /// What is missing or wrong, and what to do.
    pub async fn start(config: Config, data: &Data, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let now = clock.now();
        let stop = CancellationToken::new();
        let cut = CancellationToken::new();
        raise_file_limit();
        let recorder = metrics::install()?;

        // What is kept. The log's lock comes first: two collectors never share a folder.
        let authority = Arc::new(Authority::open(&data.pki(), now)?);
        warn_of_end(&authority, now);
        let (log, appender) = open_log(data)?;
        if log.origin() != config.name {
            let (log, config) = (log.origin().to_owned(), config.name);
            return Err(Error::Name { path: data.path().to_owned(), log, config });
        }
        let catalogue = Arc::new(load_catalogue(&config, data)?);
        let profiles = load_profiles(&config, data)?;
        let origin = views::Origin { log: config.name.clone() };
        let (views, writer) = Views::open(&data.views(), &origin, log.size())?;
        let mut follower = judge::Follower::new(Arc::new(log.clone()), writer, Arc::clone(&clock))?;
        follower.catch_up(log.size())?;
        let members = Members::load(views.member_entries()?)?;
        let inbox = Inbox::open(&data.inbox(), &inbox::Settings { limit_bytes: config.limits.inbox_bytes }, now)?;
        let settings = sequencer::Settings { checkpoint_millis: config.checkpoint_interval_ms };
        let sessions = Sessions::load(
            ingest::Settings {
                bytes: ingest::BytePace {
                    burst: config.limits.agent_burst_bytes,
                    per_second: config.limits.agent_bytes_per_second,
                },
                ..ingest::Settings::new(data.path().to_owned())
            },
            (members.clone(), inbox.clone(), log.clone()),
            Arc::clone(&clock),
            Arc::new(Lookup(views.clone())),
            known_heads(&views)?,
            views.applied()?,
        )?;
        let sequencer =
            Sequencer::start((&log, appender), inbox.clone(), sessions.follower(), Arc::clone(&clock), &settings)?;

        // What answers.
        let acts = Acts::new(sequencer.clone(), &config.name);
        let access = Access::default();
        let gate = Gate::new(members.clone(), access.clone(), Arc::clone(&clock));
        let enrollment = EnrollmentService::new(
            members.clone(),
            acts.clone(),
            Arc::clone(&authority),
            log.key(),
            &config,
            Arc::clone(&clock),
        );
        if views.catalogue_digest()? != Some(catalogue.digest()) {
            let announced = acts.append(Entry::Catalogue(catalogue.to_entry())).await;
            announced.map_err(|status| Error::Announce(status.message().to_owned()))?;
            // Nobody is served before the hosts are judged with it.
            follower.catch_up(log.size())?;
        }
        let judge = follower.judge();
        if judge.catalogue().digest() != catalogue.digest() {
            return Err(Error::Announce("another one is in force".to_owned()));
        }
        let judging = CancellationToken::new();
        let judged = tokio::spawn(follower.run(log.subscribe(), judging.clone()));
        let fleet = FleetService::new(
            &config.name,
            views.clone(),
            judge.clone(),
            Arc::new(sessions.clone()),
            Arc::clone(&clock),
        );
        let admin = AdminService::new(admin::Parts {
            members,
            acts: acts.clone(),
            authority: Arc::clone(&authority),
            sessions: sessions.clone(),
            hosts: fleet.clone(),
            judge: judge.clone(),
            fleet: config.name.clone(),
            clock: Arc::clone(&clock),
        });
        let snapshots = SnapshotService::new(snapshot::service::Parts {
            log: log.clone(),
            key: read_log_key(data)?,
            acts: acts.clone(),
            catalogue: Arc::clone(&catalogue),
            store: snapshot::store::Store::open(&data.snapshots())?,
            clock: Arc::clone(&clock),
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut routes = Routes::builder();
        routes
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(
                EnrollmentServiceServer::new(enrollment).max_decoding_message_size(limits::AGENT_MESSAGE_BYTES),
            )
            .add_service(
                IngestServiceServer::new(Ingest::new(&sessions, sequencer.clone()))
                    .max_decoding_message_size(limits::AGENT_MESSAGE_BYTES),
            )
            .add_service(AdminServiceServer::new(admin).max_decoding_message_size(REQUEST_BYTES))
            .add_service(SnapshotServiceServer::new(snapshots).max_decoding_message_size(REQUEST_BYTES))
            .add_service(FleetServiceServer::new(fleet).max_decoding_message_size(REQUEST_BYTES))
            .add_service(LogServiceServer::new(LogService::new(log.clone())).max_decoding_message_size(REQUEST_BYTES));

        // What listens, last.
        let mut tasks = JoinSet::new();
        let names = server_names(&config);
        let (certificate, issued) = authority.issue_server(&names, now, config.server_lifetime())?;
        let certificate = ServerCertificate::new(certificate);
        let roots = authority.roots().map_err(tls::Error::from)?;
        let tls = Tls::new(&config.name, roots, &certificate, Arc::clone(&clock))?;
        tasks.spawn(tasks::renew_server_certificate(
            Arc::clone(&authority),
            certificate,
            names,
            issued.renew,
            config.server_lifetime(),
            Arc::clone(&clock),
        ));
        let metrics_address = match config.metrics_address() {
            Some(address) => {
                let listener = metrics::bind(address).await.map_err(|source| Error::Listen {
                    address,
                    key: "metrics_listen",
                    source,
                })?;
                let bound = listener.local_addr().ok();
                let stopped = stop.clone();
                tasks.spawn(async move {
                    match metrics::serve(listener, recorder, stopped).await {
                        Ok(()) => "metrics".to_owned(),
                        Err(error) => format!("metrics: {error}"),
                    }
                });
                bound
            }
            None => None,
        };
        let listen_error = |source| Error::Listen { address: config.listen, key: "listen", source };
        let socket = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = socket.local_addr().map_err(listen_error)?;
        if profiles != Profiles::default() {
            tasks.spawn(tasks::hand_out(profiles, judge.clone(), sessions.clone()));
        }
        tasks.spawn(tasks::resync(judge, sessions.clone()));
        tasks.spawn(tasks::write_access(access.clone(), acts.clone()));
        let listener = Listener { socket, tls, fleet: config.name.clone(), limits: config.limits.clone(), gate };
        let served = tokio::spawn(serve::serve(listener, routes.routes(), stop.clone(), cut.clone()));
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        tasks.spawn(tasks::tell_health(inbox.clone(), health.clone()));
        tracing::info!(collector = config.name, %address, log_size = log.size(), "collector listens");
        Ok(Self {
            address,
            metrics_address,
            stop,
            cut,
            served,
            tasks,
            access,
            acts,
            log,
            sessions,
            sequencer,
            inbox,
            health,
            judging,
            judged,
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where its metrics are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Waits until a part of it fails, and says which.
    pub async fn failed(&mut self) -> Error {
        let mut stopped = self.log.stopped();
        tokio::select! {
            served = &mut self.served => match served {
                Ok(Ok(())) => Error::Task("the listener".to_owned()),
                Ok(Err(error)) => error.into(),
                Err(error) => Error::Task(error.to_string()),
            },
            Some(ended) = self.tasks.join_next() => {
                Error::Task(ended.unwrap_or_else(|error| error.to_string()))
            }
            _ = &mut self.judged => Error::Task("the judge".to_owned()),
            why = stopped.wait_for(Option::is_some) => {
                let why = why.map(|why| why.clone().unwrap_or_default()).unwrap_or_default();
                Error::LogStopped(why)
            }
        }
    }

    /// Stops within 5 seconds, whatever clients do: no new connections, then open calls have 2 s, then the log has 2.5 s to write
    /// what waits. What is not written was not acknowledged.
    pub async fn stop(mut self) {
        tracing::info!("collector stops");
        for service in ["", INGEST] {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
        self.sessions.drain();
        self.stop.cancel();
        if !self.served.is_finished() && timeout(DRAIN, &mut self.served).await.is_err() {
            self.cut.cancel();
        }
        self.tasks.abort_all();
        let finished = timeout(FINISH, async {
            tasks::append_access(&self.access, &self.acts).await;
            let (sequencer, inbox) = (self.sequencer.clone(), self.inbox.clone());
            // Both block until their threads have ended.
            let ended = tokio::task::spawn_blocking(move || {
                sequencer.stop();
                inbox.stop();
            });
            if let Err(error) = ended.await {
                tracing::error!(%error, "failed to stop the log's writer");
            }
            // Last: whatever is in the log by now may be judged at the next start as well.
            self.judging.cancel();
            if !self.judged.is_finished()
                && let Err(error) = self.judged.await
            {
                tracing::error!(%error, "failed to stop the judge");
            }
        });
        match finished.await {
            Ok(()) => tracing::info!(log_size = self.log.size(), "collector stopped"),
            Err(_) => tracing::warn!("the log did not finish writing in time; what it had was not acknowledged"),
        }
    }
}

/// Views that were made again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rebuilt {
    /// Entries of the log that they cover.
    pub log_size: u64,
    /// Digest of everything in them.
    pub digest: Digest,
    /// What the views before were like.
    pub before: Before,
}

/// What views were like before they were made again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Before {
    /// Followed to the same entry, they held the same.
    Same,
    /// Followed to the same entry, they held something else.
    Different,
    /// There were none that could be compared, and why.
    Unusable(String),
}

/// Makes the views again from the log. Blocks, and refuses while a collector runs in the folder.
///
/// # Errors
///
/// When the log is in use or damaged, or the views cannot be written.
pub fn rebuild(data: &Data, clock: Arc<dyn Clock>) -> Result<Rebuilt, Error> {
    let (log, _appender) = open_log(data)?;
    let origin = views::Origin { log: log.origin().to_owned() };
    let follow = || -> Result<(Digest, Option<String>), Error> {
        let (views, writer) = Views::open(&data.views(), &origin, log.size())?;
        let made_anew = writer.made_anew().map(str::to_owned);
        let mut follower = judge::Follower::new(Arc::new(log.clone()), writer, Arc::clone(&clock))?;
        follower.catch_up(log.size())?;
        Ok((views.digest()?, made_anew))
    };
    let (before, made_anew) = follow()?;
    views::remove(&data.views())?;
    let (digest, _) = follow()?;
    let before = match made_anew {
        Some(why) => Before::Unusable(why),
        None if before == digest => Before::Same,
        None => Before::Different,
    };
    Ok(Rebuilt { log_size: log.size(), digest, before })
}

/// Checks the whole log, and whether it has everything that the views have seen of it. Reads only; a collector may run meanwhile.
///
/// # Errors
///
/// When the log or its key cannot be read at all; damage is in the report.
pub fn check_log(data: &Data) -> Result<log::Report, Error> {
    let key = read_log_key(data)?;
    // First, for a collector that runs adds to both.
    let known = views::known_size(&data.views(), key.name()).unwrap_or_default();
    let mut report = log::fsck(&data.log(), key.vkey())?;
    if report.bad.is_none() && known > report.size {
        let behind = log::Error::Behind { path: data.log(), known, size: report.size };
        report.bad = Some(log::Bad { path: "checkpoint".into(), what: behind.to_string() });
    }
    Ok(report)
}

/// Finds reports by the views.
struct Lookup(Views);

impl ingest::ReportLookup for Lookup {
    fn index_of(&self, agent: AgentId, epoch: Epoch, seq: ReportSeq) -> Option<u64> {
        self.0.report_index(agent, epoch, seq.number()).unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "failed to find a report");
            None
        })
    }
}

fn known_heads(views: &Views) -> Result<Vec<KnownHead>, Error> {
    let heads = views.heads()?;
    Ok(heads
        .into_iter()
        .filter_map(|head| {
            let (agent, epoch) = (head.agent, head.epoch);
            let head = ingest::Head { seq: ReportSeq::new(head.seq)?, digest: head.digest, index: head.log_index };
            Some(KnownHead { agent, epoch, head })
        })
        .collect())
}

/// Returns the catalogue that the settings ask for.
///
/// # Errors
///
/// When the overlay cannot be read, or is refused: says which control and why.
pub fn load_catalogue(config: &Config, data: &Data) -> Result<Catalogue, Error> {
    let Some(path) = &config.catalogue else { return Ok(Catalogue::built_in()) };
    let path = data.path().join(path);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let catalogue = Catalogue::with_overlay(&text).map_err(|source| Error::Catalogue { path, source })?;
    for (control, mistake) in catalogue.mistakes() {
        tracing::warn!(%control, %mistake, advice = mistake.advice(), "a control of the overlay cannot be meant so");
    }
    Ok(catalogue)
}

/// Returns the profiles that the settings ask for.
///
/// # Errors
///
/// When the file cannot be read, or is refused: says which profile and why.
pub fn load_profiles(config: &Config, data: &Data) -> Result<Profiles, Error> {
    let Some(path) = &config.profiles else { return Ok(Profiles::default()) };
    let path = data.path().join(path);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    Profiles::parse(&text).map_err(|source| Error::Profiles { path, source })
}

/// Opens the log, which has what the views have seen of it at least.
fn open_log(data: &Data) -> Result<(Log, log::Appender), Error> {
    let key = read_log_key(data)?;
    let known = views::known_size(&data.views(), key.name()).unwrap_or_default();
    Ok(Log::open_at_least(&data.log(), key, known)?)
}

fn read_log_key(data: &Data) -> Result<Key, Error> {
    let path = data.log_key();
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    Key::parse(text.trim()).map_err(|source| Error::LogKey { path, source })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(muster_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Returns the names for the collector's own certificate.
pub fn server_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    names.extend([host, config.name.clone()].into_iter().filter(|name| config::is_host(name)));
    if !config.listen.ip().is_unspecified() {
        names.push(config.listen.ip().to_string());
    }
    names.extend(config.names.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.parse::<IpAddr>().map_or_else(|_| name.to_lowercase(), |ip| ip.to_string())));
    names
}

fn warn_of_end(authority: &Authority, now: Timestamp) {
    metrics::ca_ends(authority.ends());
    if authority.ends().since(now) < CA_WARNING {
        tracing::warn!(ends = %authority.ends(), "the CA certificate ends soon: no certificate outlives it");
    }
}

/// Allows as many open files as the system lets this process have: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}

#[cfg(test)]
mod tests;
