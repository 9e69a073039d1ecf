//! Lets hosts in, and keeps them in: enrolment by token, rejoining by proof of the evidence key, renewal. The entry of the log is
//! durable before a certificate leaves.

use std::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use muster_proto::{
    caller::Caller,
    fact::is_unsafe,
    id::{AgentId, Digest, TokenId},
    seal::{ENROLL_DOMAIN, EvidencePublicKey, REJOIN_DOMAIN, RENEW_DOMAIN},
    time::{Clock, Timestamp},
    v1::{self, act::Act, enrollment_service_server, log_entry::Entry},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    acts::Acts,
    config::Config,
    members::{Agent, AgentState, Members, Reservation, Secret, TokenRefusal},
    pki::{Authority, RequestedKey},
    serve::{
        caller,
        rate::{Pace, Rate},
        status::{self, Reason},
    },
};

/// How far a rejoining host's clock may be from this one's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);
/// Bytes of each text of a claim.
const CLAIM_TEXT_BYTES: usize = 255;
/// Certificates that one agent may ask for: each is an entry of the log.
const EACH_AGENT: Pace = Pace { burst: 60, interval: Duration::from_secs(60) };
/// Entries about one token that was refused.
const EACH_TOKEN: Pace = Pace { burst: 1, interval: Duration::from_secs(60) };

/// The service.
#[derive(Clone)]
pub struct EnrollmentService(Arc<Inner>);

struct Inner {
    members: Members,
    acts: Acts,
    authority: Arc<Authority>,
    fleet: String,
    log_key: String,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    /// Refused attempts, by address.
    refusals: Mutex<Rate<IpAddr>>,
    /// Work that was let through, in all.
    work: Mutex<Rate<()>>,
    agents: Mutex<Rate<AgentId>>,
    alarms: Mutex<Rate<TokenId>>,
}

impl EnrollmentService {
    /// Returns the service of a collector whose log `log_key` verifies.
    pub fn new(
        members: Members,
        acts: Acts,
        authority: Arc<Authority>,
        log_key: &str,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = Instant::now();
        let work = per(config.limits.enrollments_per_second, Duration::from_secs(1));
        let refusals = per(config.limits.refusals_per_minute, Duration::from_secs(60));
        let unbounded = Pace { burst: u32::MAX, interval: Duration::from_nanos(1) };
        Self(Arc::new(Inner {
            members,
            acts,
            authority,
            fleet: config.name.clone(),
            log_key: log_key.to_owned(),
            lifetime: config.agent_lifetime(),
            clock,
            refusals: Mutex::new(Rate::new(refusals, unbounded, now)),
            work: Mutex::new(Rate::new(work, work, now)),
            agents: Mutex::new(Rate::new(EACH_AGENT, unbounded, now)),
            alarms: Mutex::new(Rate::new(EACH_TOKEN, Pace { burst: 60, interval: Duration::from_secs(1) }, now)),
        }))
    }
}

/// Returns the pace of `count` in each `span`, twice that at once.
fn per(count: u32, span: Duration) -> Pace {
    Pace { burst: count.saturating_mul(2), interval: span / count }
}

#[tonic::async_trait]
impl enrollment_service_server::EnrollmentService for EnrollmentService {
    async fn enroll_agent(
        &self,
        request: Request<v1::EnrollAgentRequest>,
    ) -> Result<Response<v1::EnrollAgentResponse>, Status> {
        let address = caller::address_of(&request)?;
        let inner = Arc::clone(&self.0);
        // A task of its own: a caller that goes away must not free a use of a token whose entry is on its way.
        let identity = detached(async move { inner.enroll(address, request.into_inner()).await }).await?;
        Ok(Response::new(v1::EnrollAgentResponse { identity: Some(identity) }))
    }

    async fn rejoin_agent(
        &self,
        request: Request<v1::RejoinAgentRequest>,
    ) -> Result<Response<v1::RejoinAgentResponse>, Status> {
        let address = caller::address_of(&request)?;
        let identity = self.0.rejoin(address, request.into_inner()).await?;
        Ok(Response::new(v1::RejoinAgentResponse { identity: Some(identity) }))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let calling = caller::of(&request)?;
        let id = calling.caller.agent_id().ok_or_else(unknown)?;
        let identity = self.0.renew(calling.address, id, request.into_inner()).await?;
        Ok(Response::new(v1::RenewCertificateResponse { identity: Some(identity) }))
    }
}

/// Runs `work` to its end, whether or not the caller waits for it.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(status::internal("failed to finish the request", &error)),
    }
}

impl Inner {
    async fn enroll(&self, address: SocketAddr, request: v1::EnrollAgentRequest) -> Result<v1::AgentIdentity, Status> {
        let now = self.clock.now();
        let reserved = self.reserve(&request, now);
        let (reservation, key) = match reserved {
            Ok(reserved) => reserved,
            Err(refusal) => return Err(self.refuse(address, refusal).await),
        };
        take(&self.work, &())?;
        let csr = requested_key(&request.csr)?;
        verify(&key, ENROLL_DOMAIN, &request.csr, &[], &request.proof)?;
        let claim = checked_claim(request.claim.unwrap_or_default())?;
        let id = key.agent_id();
        if let Some(agent) = self.members.agent(id) {
            in_good_standing(&agent)?;
        }
        let asked = Asked {
            key: &key,
            csr: &csr,
            csr_digest: Digest::of_bytes(&request.csr),
            proof: request.proof,
            request_time: None,
            admission: Some((reservation.token(), claim)),
        };
        let identity = self.issue(asked, address, now).await?;
        tracing::info!(agent = %id, peer = %address, token = %reservation.token(), "agent enrolled");
        Ok(identity)
    }

    /// Sets a use of the token aside. What costs more is done after it.
    fn reserve(
        &self,
        request: &v1::EnrollAgentRequest,
        now: Timestamp,
    ) -> Result<(Reservation, EvidencePublicKey), Refused> {
        let secret: Secret = request.token.trim().parse().map_err(Refused::Token)?;
        let key = EvidencePublicKey::new(&request.evidence_public_key).map_err(|error| {
            Refused::Request(status::invalid(Reason::RequestInvalid, "evidence_public_key", error.to_string()))
        })?;
        let reservation = self.members.reserve(&secret, key.agent_id(), now).map_err(Refused::Token)?;
        Ok((reservation, key))
    }

    /// Returns the answer to an attempt that the token does not cover, and sounds the alarm when the token was once good.
    async fn refuse(&self, address: SocketAddr, refused: Refused) -> Status {
        if let Err(delay) = try_take(&self.refusals, &address.ip()) {
            return too_many(delay);
        }
        let refusal = match refused {
            Refused::Token(refusal) => refusal,
            Refused::Request(status) => return status,
        };
        let (reason, token, what) = match refusal {
            TokenRefusal::Invalid => {
                tracing::warn!(peer = %address, "enrolment refused: the token is none of this collector's");
                let message = "the token is none of this collector's; make one with 'musterctl token create'";
                return status::refuse(Reason::TokenInvalid, message);
            }
            TokenRefusal::UsedUp(id) => (Reason::TokenUsedUp, id, "used up"),
            TokenRefusal::Expired(id) => (Reason::TokenExpired, id, "expired"),
            TokenRefusal::Revoked(id) => (Reason::TokenRevoked, id, "revoked"),
        };
        tracing::warn!(peer = %address, %token, "enrolment refused: the token is {what}");
        metrics::counter!("muster_token_refusals_total", "reason" => what.replace(' ', "_")).increment(1);
        if try_take(&self.alarms, &token).is_ok() {
            let refused = v1::TokenRefused {
                token_id: token.to_string(),
                reason: what.to_owned(),
                peer_address: address.to_string(),
            };
            if let Err(error) = self.acts.record_own(Act::TokenRefused(refused)).await {
                tracing::error!(%token, %error, "failed to note a refused token in the evidence log");
            }
        }
        status::refuse(reason, format!("token {token} is {what}; make another with 'musterctl token create'"))
    }

    async fn rejoin(&self, address: SocketAddr, request: v1::RejoinAgentRequest) -> Result<v1::AgentIdentity, Status> {
        let delay = lock(&self.refusals).delay(&address.ip(), Instant::now());
        if !delay.is_zero() {
            return Err(too_many(delay));
        }
        take(&self.work, &())?;
        let now = self.clock.now();
        match self.check_rejoin(&request, now) {
            Ok((agent, csr)) => {
                let asked = Asked {
                    key: &agent.key,
                    csr: &csr,
                    csr_digest: Digest::of_bytes(&request.csr),
                    proof: request.proof,
                    request_time: request.request_time,
                    admission: None,
                };
                let identity = self.issue(asked, address, now).await?;
                tracing::info!(agent = %agent.id, peer = %address, "agent rejoined");
                Ok(identity)
            }
            Err(status) => {
                tracing::warn!(peer = %address, "rejoining refused: {}", status.message());
                // Counted alone; the answer stands.
                let _ = try_take(&self.refusals, &address.ip());
                Err(status)
            }
        }
    }

    fn check_rejoin(
        &self,
        request: &v1::RejoinAgentRequest,
        now: Timestamp,
    ) -> Result<(Arc<Agent>, RequestedKey), Status> {
        let id = AgentId::from_slice(&request.agent_id)
            .ok_or_else(|| status::invalid(Reason::RequestInvalid, "agent_id", "it is not 16 bytes"))?;
        let time =
            request.request_time.as_ref().and_then(Timestamp::from_wire).ok_or_else(|| {
                status::invalid(Reason::RequestInvalid, "request_time", "it is missing or out of range")
            })?;
        if now.since(time).max(time.since(now)) > CLOCK_TOLERANCE {
            let message = format!("the host's clock says {time} and the collector's {now}; set the one that is wrong");
            return Err(status::invalid(Reason::RequestInvalid, "request_time", message));
        }
        let agent = self.members.agent(id).ok_or_else(unknown)?;
        let csr = requested_key(&request.csr)?;
        verify(&agent.key, REJOIN_DOMAIN, &request.csr, &time.seconds().to_be_bytes(), &request.proof)?;
        // Only who holds the key learns where the agent stands.
        in_good_standing(&agent)?;
        Ok((agent, csr))
    }

    async fn renew(
        &self,
        address: SocketAddr,
        id: AgentId,
        request: v1::RenewCertificateRequest,
    ) -> Result<v1::AgentIdentity, Status> {
        let agent = self.members.agent(id).ok_or_else(unknown)?;
        in_good_standing(&agent)?;
        let csr = requested_key(&request.csr)?;
        verify(&agent.key, RENEW_DOMAIN, &request.csr, &[], &request.proof)?;
        let now = self.clock.now();
        let asked = Asked {
            key: &agent.key,
            csr: &csr,
            csr_digest: Digest::of_bytes(&request.csr),
            proof: request.proof,
            request_time: None,
            admission: None,
        };
        let identity = self.issue(asked, address, now).await?;
        tracing::info!(agent = %id, peer = %address, "certificate renewed");
        Ok(identity)
    }

    /// Issues a certificate, and hands it out when its entry is durable.
    async fn issue(&self, asked: Asked<'_>, address: SocketAddr, now: Timestamp) -> Result<v1::AgentIdentity, Status> {
        let Asked { key, csr, csr_digest, proof, request_time, admission } = asked;
        let id = key.agent_id();
        take(&self.agents, &id)?;
        let caller =
            Caller::agent(&self.fleet, id).map_err(|error| status::internal("failed to name the agent", &error))?;
        let issued = self
            .authority
            .issue(&caller, csr, now, self.lifetime)
            .map_err(|error| status::internal("failed to issue a certificate", &error))?;
        let entry = v1::Enrollment {
            agent_id: id.as_bytes().to_vec(),
            evidence_public_key: key.as_bytes().to_vec(),
            tls_key_digest: csr.digest().as_bytes().to_vec(),
            certificate_serial: issued.serial.as_bytes().to_vec(),
            certificate_expire_time: Some(issued.expires.to_wire()),
            proof,
            token_id: admission.as_ref().map(|(token, _)| token.to_string()).unwrap_or_default(),
            claim: admission.map(|(_, claim)| claim),
            peer_address: address.to_string(),
            csr_digest: csr_digest.as_bytes().to_vec(),
            request_time,
        };
        self.acts.append(Entry::Enrollment(entry)).await?;
        metrics::counter!("muster_certificates_issued_total", "kind" => "agent").increment(1);
        Ok(v1::AgentIdentity {
            agent_id: id.as_bytes().to_vec(),
            certificate_chain_pem: issued.chain_pem,
            ca_bundle_pem: self.authority.bundle_pem(),
            log_key: self.log_key.clone(),
            renew_time: Some(issued.renew.to_wire()),
        })
    }
}

/// A request for a certificate that is granted.
struct Asked<'a> {
    key: &'a EvidencePublicKey,
    csr: &'a RequestedKey,
    csr_digest: Digest,
    proof: Vec<u8>,
    /// Of a rejoin.
    request_time: Option<prost_types::Timestamp>,
    /// Of an enrolment: the token that allows it, and what the host says of itself.
    admission: Option<(TokenId, v1::HostClaim)>,
}

enum Refused {
    Token(TokenRefusal),
    Request(Status),
}

fn lock<K: Clone + Eq + Hash>(rate: &Mutex<Rate<K>>) -> std::sync::MutexGuard<'_, Rate<K>> {
    rate.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_take<K: Clone + Eq + Hash>(rate: &Mutex<Rate<K>>, key: &K) -> Result<(), Duration> {
    lock(rate).take(key, Instant::now())
}

fn take<K: Clone + Eq + Hash>(rate: &Mutex<Rate<K>>, key: &K) -> Result<(), Status> {
    try_take(rate, key).map_err(too_many)
}

fn too_many(delay: Duration) -> Status {
    let delay = delay.max(Duration::from_secs(1));
    let message = format!("too many attempts; try again in {} s", delay.as_secs());
    status::retry_after(Reason::TooManyAttempts, message, delay)
}

fn unknown() -> Status {
    status::refuse(Reason::AgentUnknown, "no such agent was ever enrolled here; enrol it with a token")
}

fn in_good_standing(agent: &Agent) -> Result<(), Status> {
    match agent.state {
        AgentState::Enrolled => Ok(()),
        AgentState::Frozen => {
            let message = "the agent is frozen by a conflict; an operator decides with 'musterctl hosts release'";
            Err(status::refuse(Reason::AgentFrozen, message))
        }
        AgentState::Revoked => {
            let message = "the agent was revoked; to take the host back, remove the agent's state and enrol it anew";
            Err(status::refuse(Reason::AgentRevoked, message))
        }
    }
}

fn requested_key(csr: &[u8]) -> Result<RequestedKey, Status> {
    RequestedKey::from_csr(csr).map_err(|error| status::invalid(Reason::CsrInvalid, "csr", error.to_string()))
}

/// Checks the proof that the holder of `key` asks for a certificate by `csr`: a signature over the request's SHA-256 and `rest`.
fn verify(key: &EvidencePublicKey, domain: &str, csr: &[u8], rest: &[u8], proof: &[u8]) -> Result<(), Status> {
    let mut message = Digest::of_bytes(csr).as_bytes().to_vec();
    message.extend_from_slice(rest);
    key.verify(domain, &message, proof).map_err(|_| {
        status::invalid(Reason::ProofInvalid, "proof", "it is not the evidence key's signature over the request")
    })
}

fn checked_claim(claim: v1::HostClaim) -> Result<v1::HostClaim, Status> {
    for (field, text) in [
        ("claim.hostname", &claim.hostname),
        ("claim.machine_id_digest", &claim.machine_id_digest),
        ("claim.hardware_serial", &claim.hardware_serial),
        ("claim.agent_version", &claim.agent_version),
    ] {
        if text.len() > CLAIM_TEXT_BYTES || text.chars().any(is_unsafe) {
            let message = format!("at most {CLAIM_TEXT_BYTES} bytes, without control or invisible characters");
            return Err(status::invalid(Reason::RequestInvalid, field, message));
        }
    }
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_nothing_that_turns_or_hides_text() {
        let named = |hostname: &str| v1::HostClaim { hostname: hostname.to_owned(), ..Default::default() };
        assert!(checked_claim(named("wéb-1 日本")).is_ok());
        for bad in
            ["a\u{1b}b", "a\u{202e}b", "a\u{200b}b", "a\u{2066}b", "a\u{feff}b", &"a".repeat(CLAIM_TEXT_BYTES + 1)]
        {
            assert!(checked_claim(named(bad)).is_err(), "{bad:?}");
            let version = v1::HostClaim { agent_version: bad.to_owned(), ..Default::default() };
            assert!(checked_claim(version).is_err(), "{bad:?}");
        }
    }
}
