//! The listener: accepts, shakes hands, counts, and hands connections to the services behind the gate. It knows no store.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_rustls::LazyConfigAcceptor;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub mod access;
pub mod caller;
pub mod connection;
pub mod peer;
pub mod rate;
pub mod status;
pub mod tls;

use self::{
    caller::{Gate, GateLayer},
    connection::{Bound, Connection, Slot, Slots},
    peer::{Identity, Peer},
    rate::{Pace, Rate},
    tls::Tls,
};
use crate::config::Limits;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long to wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams that one connection may have open.
const STREAMS: u32 = 16;
/// Bytes of a request's headers.
const HEADER_BYTES: u32 = 16 * 1024;
/// Resets by the peer of streams that were not accepted, at most (HTTP/2 rapid reset).
const PENDING_RESETS: usize = 20;
/// Resets by this side, at most, before the connection is closed.
const LOCAL_RESETS: usize = 1024;
/// Time between pings, and until an answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serving ended although it was not asked to.
#[derive(Debug, thiserror::Error)]
#[error("failed to serve")]
pub struct Error(#[from] tonic::transport::Error);

/// What a listener needs.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// How connections are secured.
    pub tls: Tls,
    /// Name of this collector.
    pub fleet: String,
    /// How many there may be.
    pub limits: Limits,
    /// Who may call.
    pub gate: Arc<Gate>,
}

/// Serves `routes` until `stop` is cancelled and every connection is closed; `cut`, when cancelled, closes those that are left.
///
/// # Errors
///
/// When the transport fails; an accept or a handshake that fails never ends it.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    stop: CancellationToken,
    cut: CancellationToken,
) -> Result<(), Error> {
    let Listener { socket, tls, fleet, limits, gate } = listener;
    let (sender, connections) = mpsc::channel(64);
    let acceptor = Arc::new(Acceptor {
        tls,
        fleet,
        limits,
        slots: Slots::default(),
        sender,
        cut,
        enrolling: Mutex::default(),
        lines: Mutex::new(Rate::new(
            Pace { burst: 5, interval: Duration::from_secs(10) },
            Pace { burst: 50, interval: Duration::from_secs(1) },
            Instant::now(),
        )),
    });
    let accepting = tokio::spawn(accept(acceptor, socket, stop.clone()));
    let served = Server::builder()
        .layer(GateLayer(gate))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(Ok::<_, io::Error>),
            stop.clone().cancelled_owned(),
        )
        .await;
    stop.cancel();
    // The task ends by `stop`; it cannot have panicked in a way that matters here.
    let _ = accepting.await;
    served.map_err(Error)
}

struct Acceptor {
    tls: Tls,
    fleet: String,
    limits: Limits,
    slots: Slots,
    sender: mpsc::Sender<Connection>,
    cut: CancellationToken,
    /// Connections for enrolment, the oldest first. Those that are cancelled have ended.
    enrolling: Mutex<VecDeque<CancellationToken>>,
    lines: Mutex<Rate<IpAddr>>,
}

/// Accepts until `stop`. Each handshake is a task of its own; when there are too many, the oldest is given up, so that peers that
/// are silent never keep out one that is not.
async fn accept(acceptor: Arc<Acceptor>, socket: TcpListener, stop: CancellationToken) {
    let mut handshakes: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(slots) = acceptor.admit(address) else { continue };
        while handshakes.front().is_some_and(AbortHandle::is_finished) {
            handshakes.pop_front();
        }
        if handshakes.len() >= acceptor.limits.handshakes {
            handshakes.retain(|handshake| !handshake.is_finished());
        }
        if handshakes.len() >= acceptor.limits.handshakes
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
            metrics::counter!("muster_handshakes_given_up_total").increment(1);
        }
        let task = tokio::spawn(Arc::clone(&acceptor).shake_hands(stream, address, slots));
        handshakes.push_back(task.abort_handle());
    }
    for handshake in handshakes {
        handshake.abort();
    }
}

impl Acceptor {
    /// Takes the slots that a connection needs before anything is known of it; `None` closes it.
    fn admit(&self, address: SocketAddr) -> Option<Vec<Slot>> {
        let mut slots = Vec::with_capacity(3);
        for bound in [Bound::All, Bound::Address(address.ip())] {
            let Some(slot) = self.slots.take(bound, &self.limits) else {
                self.log(address, "too many connections; see limits.connections and limits.connections_per_address");
                metrics::counter!("muster_connections_refused_total").increment(1);
                return None;
            };
            slots.push(slot);
        }
        Some(slots)
    }

    async fn shake_hands(self: Arc<Self>, stream: TcpStream, address: SocketAddr, slots: Vec<Slot>) {
        // Small messages both ways: waiting to fill packets would delay acknowledgements. Failure costs that delay alone.
        let _ = stream.set_nodelay(true);
        match timeout(HANDSHAKE, self.secure(stream, address, slots)).await {
            Ok(Ok(connection)) => {
                metrics::counter!("muster_handshakes_total", "outcome" => "done").increment(1);
                // The services are gone only when the collector stops.
                let _ = self.sender.send(connection).await;
            }
            Ok(Err(reason)) => {
                metrics::counter!("muster_handshakes_total", "outcome" => "refused").increment(1);
                if let Some(reason) = reason {
                    self.log(address, &reason);
                }
            }
            Err(_) => {
                metrics::counter!("muster_handshakes_total", "outcome" => "timed_out").increment(1);
                self.log(address, "its handshake took longer than 5 s");
            }
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        mut slots: Vec<Slot>,
    ) -> Result<Connection, Option<String>> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = tls::explained(acceptor).await?;
        let (config, is_enrolling) = self.tls.choose(&start.client_hello());
        let stream = tls::explained(start.into_stream(config)).await?;

        let identity = if is_enrolling {
            Identity::Enrolling
        } else {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificate = certificates.first().ok_or_else(|| Some("it showed no client certificate".to_owned()))?;
            Identity::Certified(peer::identify(certificate, &self.fleet).map_err(|error| Some(error.to_string()))?)
        };
        let cut = self.cut.child_token();
        match &identity {
            Identity::Enrolling => self.make_room(cut.clone()),
            Identity::Certified(certificate) => {
                let bound = Bound::Caller(certificate.caller.clone());
                let slot = self.slots.take(bound, &self.limits).ok_or_else(|| {
                    Some("too many connections with its certificate; see limits.connections_per_caller".to_owned())
                })?;
                slots.push(slot);
            }
        }
        Ok(Connection::new(stream, Peer { address, identity }, slots, cut))
    }

    /// Notes a connection for enrolment. When there are too many, the oldest is cut: an enrolment takes less than a second, and
    /// strangers who hold connections open keep out no host that does not.
    fn make_room(&self, cut: CancellationToken) {
        let mut enrolling = self.enrolling.lock().unwrap_or_else(PoisonError::into_inner);
        if enrolling.len() >= self.limits.enrollment_connections {
            enrolling.retain(|connection| !connection.is_cancelled());
        }
        if enrolling.len() >= self.limits.enrollment_connections
            && let Some(oldest) = enrolling.pop_front()
        {
            oldest.cancel();
        }
        enrolling.push_back(cut);
    }

    fn log(&self, address: SocketAddr, reason: &str) {
        let is_room =
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).take(&address.ip(), Instant::now()).is_ok();
        if is_room {
            tracing::warn!(peer = %address, "connection refused: {reason}");
        }
    }
}
