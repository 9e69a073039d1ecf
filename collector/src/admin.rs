//! Changes who may do what: tokens, credentials, agents. Each change is durable in the evidence log before it takes effect; the
//! allow-list follows the log. Nothing is decided here about roles: the gate has done that.

use std::{sync::Arc, time::Duration};

use muster_proto::{
    caller::{Caller, Role},
    fact::is_unsafe,
    id::{AgentId, Serial, TokenId},
    limits,
    time::{Clock, Timestamp},
    v1::{self, act::Act, admin_service_server},
};
use tokio::sync::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    acts::Acts,
    ingest::{Sessions, sessions::End},
    judge::Judge,
    members::{Agent, AgentState, Credential, Members, Secret, Token},
    pki::{Authority, RequestedKey},
    query::{self, FleetService},
    serve::{
        caller::{self, Calling},
        status::{self, Reason},
    },
};

mod files;
mod look;

/// Uses of a token, at most.
const TOKEN_USES: u32 = 100_000;
/// Life of a token: when nothing is said, and at most.
const TOKEN_LIFETIME: Lifetime = Lifetime { default: 86_400, most: 2_592_000 };
/// Life of a credential: when nothing is said, and at most.
const CREDENTIAL_LIFETIME: Lifetime = Lifetime { default: 7_776_000, most: 31_622_400 };
/// Bytes of a token's note.
const NOTE_BYTES: usize = 256;

struct Lifetime {
    default: u32,
    most: u32,
}

impl Lifetime {
    fn of(&self, seconds: u32) -> Result<Duration, Status> {
        match seconds {
            0 => Ok(Duration::from_secs(self.default.into())),
            seconds if seconds <= self.most => Ok(Duration::from_secs(seconds.into())),
            _ => {
                let message = format!("at most {} seconds; 0 means {}", self.most, self.default);
                Err(status::invalid(Reason::LifetimeInvalid, "lifetime_seconds", message))
            }
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct AdminService(Arc<Inner>);

struct Inner {
    members: Members,
    acts: Acts,
    authority: Arc<Authority>,
    sessions: Sessions,
    hosts: FleetService,
    judge: Judge,
    fleet: String,
    clock: Arc<dyn Clock>,
    /// Held from a check of the admins that are left until the revocation is durable.
    revoking: Mutex<()>,
}

/// What the service needs.
pub struct Parts {
    /// The allow-list.
    pub members: Members,
    /// Writes acts.
    pub acts: Acts,
    /// Issues certificates.
    pub authority: Arc<Authority>,
    /// The open streams of agents.
    pub sessions: Sessions,
    /// Knows hosts by their names.
    pub hosts: FleetService,
    /// Tells of directives whose answers are durable and judged.
    pub judge: Judge,
    /// Name of the collector.
    pub fleet: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl AdminService {
    /// Returns the service.
    pub fn new(parts: Parts) -> Self {
        let Parts { members, acts, authority, sessions, hosts, judge, fleet, clock } = parts;
        Self(Arc::new(Inner {
            members,
            acts,
            authority,
            sessions,
            hosts,
            judge,
            fleet,
            clock,
            revoking: Mutex::default(),
        }))
    }
}

#[tonic::async_trait]
impl admin_service_server::AdminService for AdminService {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let who = caller::of(&request)?;
        self.0.create_token(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let request = request.into_inner();
        let page = query::parse_page("ListTokens", "", request.page_size, &request.page_token)?;
        let tokens = self.0.members.tokens();
        let keyed = tokens.iter().map(|token| (key(token.created, &token.id), token_to_wire(token)));
        let (tokens, next_page_token) = page.take(keyed);
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let who = caller::of(&request)?;
        let token = self.0.revoke_token(&who, &request.into_inner().id).await?;
        Ok(Response::new(v1::RevokeTokenResponse { token: Some(token_to_wire(&token)) }))
    }

    async fn issue_credential(
        &self,
        request: Request<v1::IssueCredentialRequest>,
    ) -> Result<Response<v1::IssueCredentialResponse>, Status> {
        let who = caller::of(&request)?;
        self.0.issue_credential(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Result<Response<v1::ListCredentialsResponse>, Status> {
        let request = request.into_inner();
        let page = query::parse_page("ListCredentials", "", request.page_size, &request.page_token)?;
        let credentials = self.0.members.credentials();
        let keyed = credentials.iter().map(|one| (key(one.created, &one.serial), credential_to_wire(one)));
        let (credentials, next_page_token) = page.take(keyed);
        Ok(Response::new(v1::ListCredentialsResponse { credentials, next_page_token }))
    }

    async fn revoke_credential(
        &self,
        request: Request<v1::RevokeCredentialRequest>,
    ) -> Result<Response<v1::RevokeCredentialResponse>, Status> {
        let who = caller::of(&request)?;
        let credential = self.0.revoke_credential(&who, request.into_inner()).await?;
        Ok(Response::new(v1::RevokeCredentialResponse { credential: Some(credential_to_wire(&credential)) }))
    }

    type LookNowStream = ReceiverStream<Result<v1::LookNowResponse, Status>>;

    async fn look_now(&self, request: Request<v1::LookNowRequest>) -> Result<Response<Self::LookNowStream>, Status> {
        let who = caller::of(&request)?;
        self.0.look_now(&who, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_agent(
        &self,
        request: Request<v1::RevokeAgentRequest>,
    ) -> Result<Response<v1::RevokeAgentResponse>, Status> {
        let who = caller::of(&request)?;
        let host = self.0.revoke_agent(&who, request.into_inner()).await?;
        Ok(Response::new(v1::RevokeAgentResponse { host_id: host.to_string() }))
    }

    async fn resolve_conflict(
        &self,
        request: Request<v1::ResolveConflictRequest>,
    ) -> Result<Response<v1::ResolveConflictResponse>, Status> {
        let who = caller::of(&request)?;
        let host = self.0.resolve_conflict(&who, request.into_inner()).await?;
        Ok(Response::new(v1::ResolveConflictResponse { host_id: host.to_string() }))
    }

    async fn acknowledge_file_changes(
        &self,
        request: Request<v1::AcknowledgeFileChangesRequest>,
    ) -> Result<Response<v1::AcknowledgeFileChangesResponse>, Status> {
        let who = caller::of(&request)?;
        self.0.acknowledge_file_changes(&who, request.into_inner()).await.map(Response::new)
    }
}

impl Inner {
    async fn create_token(
        &self,
        who: &Calling,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, Status> {
        let uses = request.uses.max(1);
        if uses > TOKEN_USES {
            return Err(status::invalid(Reason::UsesInvalid, "uses", format!("at most {TOKEN_USES}; 0 means 1")));
        }
        let lifetime = TOKEN_LIFETIME.of(request.lifetime_seconds)?;
        if request.note.len() > NOTE_BYTES || request.note.chars().any(is_unsafe) {
            let message = format!("at most {NOTE_BYTES} bytes, without control or invisible characters");
            return Err(status::invalid(Reason::NoteInvalid, "note", message));
        }
        let secret = Secret::generate().map_err(|error| status::internal("failed to draw a token", &error))?;
        let act = v1::TokenCreated {
            token_id: secret.id().to_string(),
            token_digest: secret.digest().as_bytes().to_vec(),
            uses,
            expire_time: Some(self.clock.now().plus(lifetime).to_wire()),
            note: request.note,
        };
        self.acts.record(who, Act::TokenCreated(act)).await?;
        let token = self.members.token(secret.id()).ok_or_else(not_followed)?;
        tracing::info!(token = %token.id, uses, by = %who.caller, "token made");
        Ok(v1::CreateTokenResponse {
            token: Some(token_to_wire(&token)),
            secret: secret.text().to_owned(),
            ca_pin: self.authority.pin(),
        })
    }

    async fn revoke_token(&self, who: &Calling, id: &str) -> Result<Token, Status> {
        let find = || id.parse::<TokenId>().ok().and_then(|id| self.members.token(id));
        let not_found = || {
            status::refuse(Reason::TokenNotFound, "there is no token with this id; 'musterctl token list' shows all")
        };
        let token = find().ok_or_else(not_found)?;
        if token.revoked.is_some() {
            return Ok(token);
        }
        let act = v1::TokenRevoked { token_id: token.id.to_string() };
        self.acts.record(who, Act::TokenRevoked(act)).await?;
        tracing::info!(token = %token.id, by = %who.caller, "token revoked");
        find().ok_or_else(not_followed)
    }

    async fn issue_credential(
        &self,
        who: &Calling,
        request: v1::IssueCredentialRequest,
    ) -> Result<v1::IssueCredentialResponse, Status> {
        let role = match request.role.parse() {
            Ok(Role::Agent) | Err(_) => {
                let message = "expected viewer, auditor, enroller, operator or admin; agents enrol with a token";
                return Err(status::invalid(Reason::RoleInvalid, "role", message));
            }
            Ok(role) => role,
        };
        let caller = Caller::new(&self.fleet, role, &request.name)
            .map_err(|error| status::invalid(Reason::NameInvalid, "name", error.to_string()))?;
        let lifetime = CREDENTIAL_LIFETIME.of(request.lifetime_seconds)?;
        let key = RequestedKey::from_csr(&request.csr)
            .map_err(|error| status::invalid(Reason::CsrInvalid, "csr", error.to_string()))?;
        let issued = self
            .authority
            .issue(&caller, &key, self.clock.now(), lifetime)
            .map_err(|error| status::internal("failed to issue a certificate", &error))?;
        let act = v1::CredentialIssued {
            spiffe_id: caller.to_string(),
            serial: issued.serial.to_string(),
            expire_time: Some(issued.expires.to_wire()),
            key_digest: key.digest().as_bytes().to_vec(),
        };
        self.acts.record(who, Act::CredentialIssued(act)).await?;
        metrics::counter!("muster_certificates_issued_total", "kind" => "credential").increment(1);
        let credential = self.members.credential(issued.serial).ok_or_else(not_followed)?;
        tracing::info!(%caller, serial = %issued.serial, by = %who.caller, "credential issued");
        Ok(v1::IssueCredentialResponse {
            credential: Some(credential_to_wire(&credential)),
            certificate_chain_pem: issued.chain_pem,
            ca_bundle_pem: self.authority.bundle_pem(),
        })
    }

    async fn revoke_credential(
        &self,
        who: &Calling,
        request: v1::RevokeCredentialRequest,
    ) -> Result<Credential, Status> {
        let reason = checked_reason(request.reason)?;
        let serial = request.serial.parse::<Serial>().ok();
        let find = || serial.and_then(|serial| self.members.credential(serial));
        let not_found = || {
            let message = "there is no credential with this serial number; 'musterctl credentials list' shows all";
            status::refuse(Reason::CredentialNotFound, message)
        };
        let _revoking = self.revoking.lock().await;
        let credential = find().ok_or_else(not_found)?;
        if credential.revoked.is_some() {
            return Ok(credential);
        }
        let now = self.clock.now();
        let is_admin = |credential: &Credential| {
            credential.caller.role() == Role::Admin && credential.revoked.is_none() && now < credential.expires
        };
        let others = self
            .members
            .credentials()
            .iter()
            .filter(|other| other.serial != credential.serial && is_admin(other))
            .count();
        if is_admin(&credential) && others == 0 {
            let message = "it is the last credential of an admin that holds; issue another one first";
            return Err(status::refuse(Reason::LastAdmin, message));
        }
        let act = v1::CredentialRevoked { serial: credential.serial.to_string(), reason };
        self.acts.record(who, Act::CredentialRevoked(act)).await?;
        tracing::info!(caller = %credential.caller, serial = %credential.serial, by = %who.caller, "credential revoked");
        find().ok_or_else(not_followed)
    }

    async fn revoke_agent(&self, who: &Calling, request: v1::RevokeAgentRequest) -> Result<AgentId, Status> {
        let reason = checked_reason(request.reason)?;
        let agent = self.find_host(&request.host).await?;
        if agent.state == AgentState::Revoked {
            return Ok(agent.id);
        }
        let act = v1::AgentRevoked { agent_id: agent.id.as_bytes().to_vec(), reason };
        self.acts.record(who, Act::AgentRevoked(act)).await?;
        self.sessions.end(agent.id, End::Revoked);
        tracing::info!(agent = %agent.id, by = %who.caller, "agent revoked");
        Ok(agent.id)
    }

    async fn resolve_conflict(&self, who: &Calling, request: v1::ResolveConflictRequest) -> Result<AgentId, Status> {
        let reason = checked_reason(request.reason)?;
        let agent = self.find_host(&request.host).await?;
        if agent.state != AgentState::Frozen {
            return Err(status::refuse(Reason::NotFrozen, "the host is not frozen; there is nothing to decide"));
        }
        let act = v1::ConflictResolved { agent_id: agent.id.as_bytes().to_vec(), reason };
        self.acts.record(who, Act::ConflictResolved(act)).await?;
        tracing::info!(agent = %agent.id, by = %who.caller, "conflict resolved");
        Ok(agent.id)
    }

    /// Returns the agent that `text` names, as in GetHostRequest. An id is known as soon as its agent has enrolled.
    async fn find_host(&self, text: &str) -> Result<Arc<Agent>, Status> {
        let id = match text.parse() {
            Ok(id) => id,
            Err(_) => self.hosts.resolve(text.to_owned()).await?,
        };
        self.members.agent(id).ok_or_else(|| {
            status::refuse(Reason::HostNotFound, "there is no host with this id; 'musterctl hosts list' shows all")
        })
    }
}

fn checked_reason(reason: String) -> Result<String, Status> {
    if reason.trim().is_empty() || reason.len() > limits::DETAIL_BYTES || reason.chars().any(is_unsafe) {
        let message = format!("1 to {} bytes, without control or invisible characters", limits::DETAIL_BYTES);
        return Err(status::invalid(Reason::ReasonInvalid, "reason", message));
    }
    Ok(reason)
}

/// The entry is durable, and the allow-list does not show it.
fn not_followed() -> Status {
    status::refuse(
        Reason::Internal,
        "the change is in the evidence log, but has not taken effect; restart the collector",
    )
}

/// Returns a key whose order is that of the lists: time of creation, then id.
fn key(created: Timestamp, id: &dyn std::fmt::Display) -> String {
    format!("{:020} {id}", created.micros())
}

fn token_to_wire(token: &Token) -> v1::Token {
    v1::Token {
        id: token.id.to_string(),
        note: token.note.clone(),
        uses: token.uses,
        used: token.used(),
        create_time: Some(token.created.to_wire()),
        expire_time: Some(token.expires.to_wire()),
        revoke_time: token.revoked.map(Timestamp::to_wire),
    }
}

fn credential_to_wire(credential: &Credential) -> v1::Credential {
    v1::Credential {
        serial: credential.serial.to_string(),
        spiffe_id: credential.caller.to_string(),
        role: credential.caller.role().to_string(),
        name: credential.caller.name().to_owned(),
        create_time: Some(credential.created.to_wire()),
        expire_time: Some(credential.expires.to_wire()),
        revoke_time: credential.revoked.map(Timestamp::to_wire),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_holds_nothing_that_turns_or_hides_text() {
        assert!(checked_reason("stolen, see CHG-7".to_owned()).is_ok());
        for bad in ["", "  ", "a\nb", "a\u{202e}b", "a\u{200b}b", "a\u{2066}b"] {
            assert!(checked_reason(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
