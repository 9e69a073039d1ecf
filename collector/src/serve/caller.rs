//! Stands before every service: who calls, may they, and for how long. The connection's certificate alone says who; no header does.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use muster_proto::{
    caller::{self, Caller},
    id::Serial,
    time::Clock,
};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status, body::Body, codegen::Bytes};
use tower::{Layer, Service};

use super::{
    access::Access,
    connection::Info,
    peer::{Certificate, Identity},
    rate::{Pace, Rate},
    status::{self, Reason},
};
use crate::members::{Members, Refusal};

/// What connections without a certificate may call.
const ENROLLMENT: &[&str] = &["/muster.v1.EnrollmentService/EnrollAgent", "/muster.v1.EnrollmentService/RejoinAgent"];
/// Calls whose answer is a stream: it ends when the caller is refused.
const ANSWER_STREAMS: &[&str] = &[
    "/muster.v1.AdminService/LookNow",
    "/muster.v1.FleetService/WatchVerdicts",
    "/muster.v1.IngestService/StreamReports",
    "/muster.v1.SnapshotService/DownloadSnapshot",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Calls whose request is a stream, which may take as long as it likes, and ends when the caller is refused.
const REQUEST_STREAMS: &[&str] = &[
    "/muster.v1.IngestService/StreamReports",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The call whose requests are read by nothing but its answer: when that is ended, for the caller is refused, reading ends too.
const READ_BY_ANSWER: &str = "/muster.v1.IngestService/StreamReports";
/// How long the one message of any other request may take to arrive.
const REQUEST_MESSAGE: Duration = Duration::from_secs(30);

/// Who makes a call, as its connection's certificate and the allow-list say. Each request that reaches a service carries it,
/// but those for enrolment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Calling {
    /// Who.
    pub caller: Caller,
    /// Serial number of the certificate.
    pub serial: Serial,
    /// Address that the call came from.
    pub address: SocketAddr,
}

/// Returns who makes the call.
///
/// # Errors
///
/// INTERNAL when the request did not pass this layer.
pub fn of<T>(request: &tonic::Request<T>) -> Result<Calling, Status> {
    let calling = request.extensions().get::<Calling>().cloned();
    calling.ok_or_else(|| status::refuse(Reason::Internal, "the call has no caller"))
}

/// Returns the address that a call came from.
///
/// # Errors
///
/// INTERNAL when the request did not come over a connection of the listener.
pub fn address_of<T>(request: &tonic::Request<T>) -> Result<SocketAddr, Status> {
    let address = request.extensions().get::<Info>().map(|info| info.peer.address);
    address.ok_or_else(|| status::refuse(Reason::Internal, "the call has no connection"))
}

/// What the layer knows.
pub struct Gate {
    members: Members,
    access: Access,
    clock: Arc<dyn Clock>,
    lines: Mutex<Rate<IpAddr>>,
}

impl Gate {
    /// Returns a gate that lets in whom `members` and the table of roles allow, and counts reads in `access`.
    pub fn new(members: Members, access: Access, clock: Arc<dyn Clock>) -> Arc<Self> {
        let each = Pace { burst: 5, interval: Duration::from_secs(10) };
        let all = Pace { burst: 50, interval: Duration::from_secs(1) };
        Arc::new(Self { members, access, clock, lines: Mutex::new(Rate::new(each, all, Instant::now())) })
    }

    /// Says whether a call of `path` over the connection may go on, and who makes it; `None` for an enrolment.
    fn admit(&self, info: &Info, path: &str) -> Result<Option<Calling>, Status> {
        let Some((method, _)) = caller::ALLOWED.iter().find(|(row, _)| *row == path) else {
            return Err(status::refuse(
                Reason::RpcUnknown,
                "this collector has no such RPC; is the client newer than it?",
            ));
        };
        let certificate = match &info.peer.identity {
            Identity::Enrolling if ENROLLMENT.contains(method) => return Ok(None),
            Identity::Enrolling => {
                let message =
                    "a connection without a certificate reaches EnrollAgent and RejoinAgent alone; show a certificate";
                return Err(status::refuse(Reason::EnrollmentOnly, message));
            }
            Identity::Certified(certificate) => certificate,
        };
        if let Err(refusal) = self.members.check(&certificate.caller, certificate.serial, self.clock.now()) {
            return Err(refused(certificate, refusal));
        }
        let caller = &certificate.caller;
        if !caller::may_call(caller.role(), path) {
            let message = format!("role {} may not call {path}; {}", caller.role(), who_may(path));
            return Err(status::refuse(Reason::RoleNotAllowed, message));
        }
        Ok(Some(Calling { caller: caller.clone(), serial: certificate.serial, address: info.peer.address }))
    }

    /// Returns what resolves when the connection's certificate is good for nothing any more.
    fn refusal(self: &Arc<Self>, info: &Info) -> Option<Refused> {
        match &info.peer.identity {
            Identity::Certified(certificate) => Some(Box::pin(Arc::clone(self).until_refused(certificate.clone()))),
            Identity::Enrolling => None,
        }
    }

    fn count(&self, info: &Info, path: &str, was_answered: bool) {
        let Identity::Certified(certificate) = &info.peer.identity else { return };
        // What agents do is in the log by itself.
        if certificate.caller.role() == caller::Role::Agent {
            return;
        }
        if let Some((method, _)) = caller::ALLOWED.iter().find(|(row, _)| *row == path) {
            self.access.count(&certificate.caller, method, was_answered);
        }
    }

    fn log_refusal(&self, info: &Info, status: &Status) {
        let address = info.peer.address;
        let is_room =
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).take(&address.ip(), Instant::now()).is_ok();
        if !is_room {
            return;
        }
        match &info.peer.identity {
            Identity::Certified(certificate) => tracing::warn!(
                peer = %address,
                caller = %certificate.caller,
                serial = %certificate.serial,
                "call refused: {}",
                status.message()
            ),
            Identity::Enrolling => tracing::warn!(peer = %address, "call refused: {}", status.message()),
        }
    }

    /// Waits until the certificate is good for nothing any more, and returns what to tell its holder.
    async fn until_refused(self: Arc<Self>, certificate: Certificate) -> Status {
        let mut revocations = self.members.revocations();
        loop {
            revocations.mark_unchanged();
            let now = self.clock.now();
            if let Err(refusal) = self.members.check(&certificate.caller, certificate.serial, now) {
                return refused(&certificate, refusal);
            }
            // An hour at most, for a clock that is set.
            let rest = certificate.expires.since(now).clamp(Duration::from_millis(1), Duration::from_secs(3600));
            tokio::select! {
                changed = revocations.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(rest).await;
                    }
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }
}

fn refused(certificate: &Certificate, refusal: Refusal) -> Status {
    let (reason, what_to_do) = match refusal {
        Refusal::Unknown => (Reason::CertificateUnknown, "issue another with 'musterctl credentials create'"),
        Refusal::Expired { .. } => (
            Reason::CertificateExpired,
            "connect again with a renewed one, or issue another with 'musterctl credentials create'",
        ),
        Refusal::CredentialRevoked => {
            (Reason::CredentialRevoked, "ask an admin for another: 'musterctl credentials create'")
        }
        Refusal::AgentRevoked => {
            (Reason::AgentRevoked, "to take the host back, remove the agent's state and enrol it anew")
        }
    };
    status::refuse(
        reason,
        format!("certificate {} of {} is refused: {refusal}; {what_to_do}", certificate.serial, certificate.caller),
    )
}

fn who_may(path: &str) -> String {
    let roles = caller::ALLOWED.iter().find(|(row, _)| *row == path).map_or(&[][..], |(_, roles)| roles);
    if roles.is_empty() {
        return "only a host without a certificate may, to enrol".to_owned();
    }
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    let advice = if roles.contains(&caller::Role::Agent) {
        ""
    } else {
        "; an admin makes a credential of such a role with 'musterctl credentials create'"
    };
    format!("roles that may: {}{advice}", names.join(", "))
}

/// Puts the gate before services.
#[derive(Clone)]
pub struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService { gate: Arc::clone(&self.0), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct GateService<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request<Body>> for GateService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let gate = Arc::clone(&self.gate);
        let path = request.uri().path().to_owned();
        let Some(info) = request.extensions().get::<Info>().cloned() else {
            let status = status::refuse(Reason::Internal, "the call has no connection");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        info.note_request();
        // Nobody but this layer says who calls.
        request.extensions_mut().remove::<Calling>();
        let calling = match gate.admit(&info, &path) {
            Ok(calling) => calling,
            Err(status) => {
                gate.count(&info, &path, false);
                gate.log_refusal(&info, &status);
                metrics::counter!("muster_calls_refused_total").increment(1);
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        if let Some(calling) = calling {
            request.extensions_mut().insert(calling);
        }
        let refused = |is_stream: bool| is_stream.then(|| gate.refusal(&info)).flatten();
        let is_stream = REQUEST_STREAMS.contains(&path.as_str());
        let guard = Guard {
            refused: refused(is_stream && path != READ_BY_ANSWER),
            deadline: (!is_stream).then(|| Box::pin(tokio::time::sleep(REQUEST_MESSAGE))),
            side: Side::Request,
        };
        let request = request.map(|body| guard.around(body));
        let guard =
            Guard { refused: refused(ANSWER_STREAMS.contains(&path.as_str())), deadline: None, side: Side::Answer };

        // The clone takes the place of the service that was made ready.
        let clone = self.inner.clone();
        let answer = std::mem::replace(&mut self.inner, clone).call(request);
        Box::pin(async move {
            let response = answer.await?;
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            gate.count(&info, &path, !matches!(code, Code::PermissionDenied | Code::Unauthenticated));
            Ok(response.map(|body| guard.around(body)))
        })
    }
}

type Refused = Pin<Box<dyn Future<Output = Status> + Send>>;

#[derive(Clone, Copy)]
enum Side {
    Request,
    Answer,
}

/// What ends a body before its time.
struct Guard {
    refused: Option<Refused>,
    deadline: Option<Pin<Box<Sleep>>>,
    side: Side,
}

impl Guard {
    fn around(self, inner: Body) -> Body {
        if inner.is_end_stream() || (self.refused.is_none() && self.deadline.is_none()) {
            return inner;
        }
        Body::new(GuardedBody { inner: Some(inner), guard: self })
    }
}

/// A body that ends when its caller is refused, or when it takes too long.
struct GuardedBody {
    inner: Option<Body>,
    guard: Guard,
}

impl GuardedBody {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(refused) = &mut self.guard.refused
            && let Poll::Ready(status) = refused.as_mut().poll(cx)
        {
            self.guard.refused = None;
            return Poll::Ready(status);
        }
        if let Some(deadline) = &mut self.guard.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.guard.deadline = None;
            let message = format!("the request's message did not arrive within {} s", REQUEST_MESSAGE.as_secs());
            return Poll::Ready(status::refuse(Reason::RequestTimedOut, message));
        }
        Poll::Pending
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.inner.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = this.poll_end(cx) {
            this.inner = None;
            return Poll::Ready(Some(match this.guard.side {
                Side::Request => Err(status),
                Side::Answer => trailers(&status).map(Frame::trailers),
            }));
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if frame.is_none() {
            this.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn trailers(status: &Status) -> Result<http::HeaderMap, Status> {
    let mut map = http::HeaderMap::new();
    status.add_header(&mut map)?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn the_streams_are_those_of_the_contract() {
        let mut answers = BTreeSet::new();
        let mut requests = BTreeSet::new();
        for bytes in [
            muster_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in prost_types::FileDescriptorSet::decode(bytes).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        if method.server_streaming() {
                            answers.insert(path.clone());
                        }
                        if method.client_streaming() {
                            requests.insert(path);
                        }
                    }
                }
            }
        }
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(set(ANSWER_STREAMS), answers);
        assert_eq!(set(REQUEST_STREAMS), requests);
    }
}
