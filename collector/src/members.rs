//! The live allow-list: which agents, credentials and tokens are good at this moment, in memory.
//!
//! It is a view of the evidence log: [`Members::apply`] takes each entry after it is durable, in any order and more than once, and
//! nothing else changes it but reservations of tokens. It owns no file and no connection, and decides nothing about roles.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use muster_proto::{
    caller::Caller,
    id::{AgentId, Digest, Serial, TokenId},
    seal::EvidencePublicKey,
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;
use tokio::sync::watch;

mod token;

pub use token::{Reservation, Secret, Token, TokenRefusal};

/// An entry of the log is not one that this version can follow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not an encoded entry.
    #[error("failed to decode entry {index} of the evidence log")]
    Decode {
        /// Index of the entry.
        index: u64,
        /// Why.
        source: prost::DecodeError,
    },
    /// A field is not what the contract says.
    #[error("entry {index} of the evidence log has no valid {field}")]
    Field {
        /// Index of the entry.
        index: u64,
        /// The field.
        field: &'static str,
    },
}

/// Where an agent stands. Whether it reports is a matter of the views.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AgentState {
    /// Enrolled, and in good standing.
    Enrolled,
    /// Two claims contradict each other; nothing is taken until an operator decides.
    Frozen,
    /// Nothing more is taken, ever.
    Revoked,
}

/// An agent of the fleet.
#[derive(Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The key that verifies its reports.
    pub key: EvidencePublicKey,
    /// Where it stands.
    pub state: AgentState,
    /// Name that the host gave itself when it enrolled last. It authorises nothing.
    pub hostname: String,
    /// When it enrolled first, collector's clock.
    pub enrolled: Timestamp,
    /// The token that let it in last.
    pub token: Option<TokenId>,
    /// Certificates that it was given, with their ends.
    certificates: BTreeMap<Serial, Timestamp>,
    /// Index of the entry that `hostname` and `token` are from.
    claimed_at: u64,
    /// Index of the entry that froze or thawed it.
    decided_at: u64,
}

/// A credential of a person or program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// Serial number of its certificate.
    pub serial: Serial,
    /// Who it is.
    pub caller: Caller,
    /// When it was issued, collector's clock.
    pub created: Timestamp,
    /// Its end.
    pub expires: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// Why a certificate that verifies is not good for a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The log holds no such certificate.
    Unknown,
    /// Its end has come.
    Expired {
        /// Its end.
        at: Timestamp,
    },
    /// The credential was revoked.
    CredentialRevoked,
    /// The agent was revoked.
    AgentRevoked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("this collector's log does not hold it"),
            Self::Expired { at } => write!(f, "it expired at {at}"),
            Self::CredentialRevoked => f.write_str("it was revoked"),
            Self::AgentRevoked => f.write_str("the agent was revoked"),
        }
    }
}

#[derive(Default)]
struct State {
    agents: HashMap<AgentId, Arc<Agent>>,
    credentials: BTreeMap<Serial, Credential>,
    tokens: BTreeMap<TokenId, Token>,
}

struct Inner {
    state: RwLock<State>,
    /// Grows with each revocation, so that open calls look again.
    revocations: watch::Sender<u64>,
}

/// The allow-list; a cheap handle.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

impl Default for Members {
    fn default() -> Self {
        Self(Arc::new(Inner { state: RwLock::default(), revocations: watch::Sender::new(0) }))
    }
}

impl Members {
    /// Returns the allow-list that `entries` of the log make: index and encoded entry, reports left out.
    ///
    /// # Errors
    ///
    /// When an entry is none that this version can follow.
    pub fn load<B: AsRef<[u8]>>(entries: impl IntoIterator<Item = (u64, B)>) -> Result<Self, Error> {
        let members = Self::default();
        members.follow(entries)?;
        Ok(members)
    }

    /// Takes durable entries of the log: index and encoded entry.
    ///
    /// # Errors
    ///
    /// When an entry is none that this version can follow.
    pub fn follow<B: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (u64, B)>) -> Result<(), Error> {
        for (index, bytes) in entries {
            let entry = v1::LogEntry::decode(bytes.as_ref()).map_err(|source| Error::Decode { index, source })?;
            self.apply(index, &entry)?;
        }
        Ok(())
    }

    /// Takes an entry that is durable at `index` of the log. Entries that concern no member are passed over.
    ///
    /// The outcome is the same in any order that keeps cause before effect, and when an entry is taken again.
    ///
    /// # Errors
    ///
    /// [`Error::Field`] when a field is not what the contract says; nothing is changed then.
    pub fn apply(&self, index: u64, entry: &v1::LogEntry) -> Result<(), Error> {
        let received = time(index, "received_time", entry.received_time.as_ref())?;
        match &entry.entry {
            Some(Entry::Enrollment(enrollment)) => self.apply_enrollment(index, received, enrollment),
            Some(Entry::Conflict(conflict)) => self.decide(index, &conflict.agent_id, AgentState::Frozen),
            Some(Entry::Act(act)) => self.apply_act(index, received, act.act.as_ref()),
            Some(Entry::Report(_) | Entry::Access(_) | Entry::Catalogue(_)) | None => Ok(()),
        }
    }

    /// Returns the agent `id`, whatever its state.
    pub fn agent(&self, id: AgentId) -> Option<Arc<Agent>> {
        self.read().agents.get(&id).cloned()
    }

    /// Returns every agent, ordered by id.
    pub fn agents(&self) -> Vec<Arc<Agent>> {
        let mut agents: Vec<_> = self.read().agents.values().cloned().collect();
        agents.sort_by_key(|agent| agent.id);
        agents
    }

    /// Returns the credential with this serial number, whatever its state.
    pub fn credential(&self, serial: Serial) -> Option<Credential> {
        self.read().credentials.get(&serial).cloned()
    }

    /// Returns every credential, ordered by time of issue and serial.
    pub fn credentials(&self) -> Vec<Credential> {
        let mut credentials: Vec<_> = self.read().credentials.values().cloned().collect();
        credentials.sort_by_key(|credential| (credential.created, credential.serial));
        credentials
    }

    /// Returns the token `id`, whatever its state.
    pub fn token(&self, id: TokenId) -> Option<Token> {
        self.read().tokens.get(&id).cloned()
    }

    /// Returns every token, ordered by time of creation and id.
    pub fn tokens(&self) -> Vec<Token> {
        let mut tokens: Vec<_> = self.read().tokens.values().cloned().collect();
        tokens.sort_by_key(|token| (token.created, token.id));
        tokens
    }

    /// Says whether `caller` may call anything at all at `now` with its certificate `serial`. A frozen agent may: what it is
    /// refused is the matter of the services.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn check(&self, caller: &Caller, serial: Serial, now: Timestamp) -> Result<(), Refusal> {
        let state = self.read();
        let expires = match caller.agent_id() {
            Some(id) => {
                let agent = state.agents.get(&id).ok_or(Refusal::Unknown)?;
                if agent.state == AgentState::Revoked {
                    return Err(Refusal::AgentRevoked);
                }
                *agent.certificates.get(&serial).ok_or(Refusal::Unknown)?
            }
            None => {
                let credential = state.credentials.get(&serial).ok_or(Refusal::Unknown)?;
                if credential.caller != *caller {
                    return Err(Refusal::Unknown);
                }
                if credential.revoked.is_some() {
                    return Err(Refusal::CredentialRevoked);
                }
                credential.expires
            }
        };
        if now >= expires { Err(Refusal::Expired { at: expires }) } else { Ok(()) }
    }

    /// Returns a number that changes after each revocation: time to [`Members::check`] an open call again.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.subscribe()
    }

    /// Reserves a use of the token `secret` for `agent`. The reservation counts until it is dropped; the enrolment's entry counts
    /// from when it is applied. An agent that the token let in before uses nothing up.
    ///
    /// # Errors
    ///
    /// Why the token lets nobody in.
    pub fn reserve(&self, secret: &Secret, agent: AgentId, now: Timestamp) -> Result<Reservation, TokenRefusal> {
        let mut state = self.write();
        let token = state.tokens.get_mut(&secret.id()).ok_or(TokenRefusal::Invalid)?;
        if verify_slices_are_equal(token.digest.as_bytes(), secret.digest().as_bytes()).is_err() {
            return Err(TokenRefusal::Invalid);
        }
        token.admit(agent, now)?;
        *token.reserved.entry(agent).or_default() += 1;
        Ok(Reservation { members: self.clone(), token: secret.id(), agent })
    }

    fn release(&self, id: TokenId, agent: AgentId) {
        let mut state = self.write();
        let Some(token) = state.tokens.get_mut(&id) else { return };
        if let Some(count) = token.reserved.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                token.reserved.remove(&agent);
            }
        }
    }

    fn apply_enrollment(&self, index: u64, received: Timestamp, entry: &v1::Enrollment) -> Result<(), Error> {
        let key = EvidencePublicKey::new(&entry.evidence_public_key)
            .map_err(|_| Error::Field { index, field: "evidence_public_key" })?;
        let id = key.agent_id();
        if entry.agent_id != id.as_bytes() {
            return Err(Error::Field { index, field: "agent_id" });
        }
        let serial =
            Serial::from_slice(&entry.certificate_serial).ok_or(Error::Field { index, field: "certificate_serial" })?;
        let expires = time(index, "certificate_expire_time", entry.certificate_expire_time.as_ref())?;
        let token = match entry.token_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::Field { index, field: "token_id" })?),
        };

        let mut state = self.write();
        let agent = state.agents.entry(id).or_insert_with(|| {
            Arc::new(Agent {
                id,
                key,
                state: AgentState::Enrolled,
                hostname: String::new(),
                enrolled: received,
                token: None,
                certificates: BTreeMap::new(),
                claimed_at: 0,
                decided_at: 0,
            })
        });
        let agent = Arc::make_mut(agent);
        agent.enrolled = agent.enrolled.min(received);
        // What has ended before this entry cannot be good again.
        agent.certificates.retain(|_, expires| *expires > received);
        agent.certificates.insert(serial, expires);
        if index >= agent.claimed_at {
            if let Some(claim) = &entry.claim {
                agent.hostname.clone_from(&claim.hostname);
            }
            agent.token = token.or(agent.token);
            agent.claimed_at = index;
        }
        if let Some(token) = token.and_then(|token| state.tokens.get_mut(&token)) {
            token.used_by.insert(id);
        }
        Ok(())
    }

    fn apply_act(&self, index: u64, received: Timestamp, act: Option<&Act>) -> Result<(), Error> {
        match act {
            Some(Act::TokenCreated(act)) => self.apply_token(index, received, act),
            Some(Act::TokenRevoked(act)) => {
                let id: TokenId = act.token_id.parse().map_err(|_| Error::Field { index, field: "token_id" })?;
                if let Some(token) = self.write().tokens.get_mut(&id) {
                    token.revoked.get_or_insert(received);
                }
                Ok(())
            }
            Some(Act::CredentialIssued(act)) => self.apply_credential(index, received, act),
            Some(Act::CredentialRevoked(act)) => {
                let serial: Serial = act.serial.parse().map_err(|_| Error::Field { index, field: "serial" })?;
                if let Some(credential) = self.write().credentials.get_mut(&serial) {
                    credential.revoked.get_or_insert(received);
                }
                self.0.revocations.send_modify(|count| *count += 1);
                Ok(())
            }
            Some(Act::AgentRevoked(act)) => self.decide(index, &act.agent_id, AgentState::Revoked),
            Some(Act::ConflictResolved(act)) => self.decide(index, &act.agent_id, AgentState::Enrolled),
            Some(
                Act::CollectorCreated(_)
                | Act::SnapshotExported(_)
                | Act::LookRequested(_)
                | Act::TokenRefused(_)
                | Act::FileChangesAcknowledged(_),
            )
            | None => Ok(()),
        }
    }

    fn apply_token(&self, index: u64, received: Timestamp, act: &v1::TokenCreated) -> Result<(), Error> {
        let id: TokenId = act.token_id.parse().map_err(|_| Error::Field { index, field: "token_id" })?;
        let digest = Digest::from_slice(&act.token_digest).ok_or(Error::Field { index, field: "token_digest" })?;
        let expires = time(index, "expire_time", act.expire_time.as_ref())?;
        self.write().tokens.entry(id).or_insert_with(|| Token {
            id,
            digest,
            uses: act.uses,
            created: received,
            expires,
            revoked: None,
            note: act.note.clone(),
            used_by: BTreeSet::new(),
            reserved: BTreeMap::new(),
        });
        Ok(())
    }

    fn apply_credential(&self, index: u64, received: Timestamp, act: &v1::CredentialIssued) -> Result<(), Error> {
        let serial: Serial = act.serial.parse().map_err(|_| Error::Field { index, field: "serial" })?;
        let caller: Caller = act.spiffe_id.parse().map_err(|_| Error::Field { index, field: "spiffe_id" })?;
        let expires = time(index, "expire_time", act.expire_time.as_ref())?;
        self.write().credentials.entry(serial).or_insert(Credential {
            serial,
            caller,
            created: received,
            expires,
            revoked: None,
        });
        Ok(())
    }

    /// Moves an agent to `next`, unless it is revoked or a later entry decided otherwise.
    fn decide(&self, index: u64, agent_id: &[u8], next: AgentState) -> Result<(), Error> {
        let id = AgentId::from_slice(agent_id).ok_or(Error::Field { index, field: "agent_id" })?;
        {
            let mut state = self.write();
            let Some(agent) = state.agents.get_mut(&id) else { return Ok(()) };
            let agent = Arc::make_mut(agent);
            if agent.state == AgentState::Revoked || (next != AgentState::Revoked && index < agent.decided_at) {
                return Ok(());
            }
            agent.state = next;
            agent.decided_at = index;
        }
        if next == AgentState::Revoked {
            self.0.revocations.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    // A panic while the lock is held leaves no half-made change: each section changes one value, or inserts after it was checked.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(index: u64, field: &'static str, wire: Option<&prost_types::Timestamp>) -> Result<Timestamp, Error> {
    wire.and_then(Timestamp::from_wire).ok_or(Error::Field { index, field })
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.read();
        f.debug_struct("Members")
            .field("agents", &state.agents.len())
            .field("credentials", &state.credentials.len())
            .field("tokens", &state.tokens.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_proto::{caller::Role, seal::EvidenceKey};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds).unwrap()
    }

    fn entry(received: Timestamp, entry: Entry) -> v1::LogEntry {
        v1::LogEntry { received_time: Some(received.to_wire()), entry: Some(entry) }
    }

    fn act(received: Timestamp, act: Act) -> v1::LogEntry {
        let act = v1::Act { actor: "spiffe://c1/admin/a".into(), credential_serial: String::new(), act: Some(act) };
        entry(received, Entry::Act(act))
    }

    fn serial(number: u8) -> Serial {
        Serial::new([number; 16])
    }

    fn enrollment(key: &EvidenceKey, number: u8, received: Timestamp, token: &str) -> v1::LogEntry {
        entry(
            received,
            Entry::Enrollment(v1::Enrollment {
                agent_id: key.agent_id().as_bytes().to_vec(),
                evidence_public_key: key.public_key().to_vec(),
                certificate_serial: serial(number).as_bytes().to_vec(),
                certificate_expire_time: Some(received.plus(Duration::from_secs(100)).to_wire()),
                token_id: token.to_owned(),
                claim: Some(v1::HostClaim { hostname: format!("h{number}"), ..Default::default() }),
                ..Default::default()
            }),
        )
    }

    fn token(secret: &Secret, uses: u32, expires: Timestamp) -> v1::LogEntry {
        act(
            at(0),
            Act::TokenCreated(v1::TokenCreated {
                token_id: secret.id().to_string(),
                token_digest: secret.digest().as_bytes().to_vec(),
                uses,
                expire_time: Some(expires.to_wire()),
                note: String::new(),
            }),
        )
    }

    fn new_key() -> EvidenceKey {
        EvidenceKey::generate().unwrap().0
    }

    #[test]
    fn an_agent_is_good_with_the_certificates_of_the_log_until_they_end() {
        let members = Members::default();
        let key = new_key();
        let caller = Caller::agent("c1", key.agent_id()).unwrap();
        assert_eq!(members.check(&caller, serial(1), at(0)), Err(Refusal::Unknown));

        members.apply(1, &enrollment(&key, 1, at(0), "")).unwrap();
        members.apply(2, &enrollment(&key, 2, at(50), "")).unwrap();
        assert_eq!(members.check(&caller, serial(1), at(99)), Ok(()));
        assert_eq!(members.check(&caller, serial(2), at(99)), Ok(()));
        assert_eq!(members.check(&caller, serial(3), at(99)), Err(Refusal::Unknown));
        assert_eq!(members.check(&caller, serial(1), at(100)), Err(Refusal::Expired { at: at(100) }));

        let revoked = v1::AgentRevoked { agent_id: key.agent_id().as_bytes().to_vec(), reason: String::new() };
        members.apply(3, &act(at(60), Act::AgentRevoked(revoked))).unwrap();
        assert_eq!(members.check(&caller, serial(2), at(61)), Err(Refusal::AgentRevoked));
        members.apply(4, &enrollment(&key, 4, at(70), "")).unwrap();
        assert_eq!(members.check(&caller, serial(4), at(71)), Err(Refusal::AgentRevoked), "it came back");
    }

    #[test]
    fn the_last_decision_on_a_conflict_stands_in_any_order() {
        let key = new_key();
        let id = key.agent_id().as_bytes().to_vec();
        let conflict = entry(at(1), Entry::Conflict(v1::Conflict { agent_id: id.clone(), ..Default::default() }));
        let resolved = act(at(2), Act::ConflictResolved(v1::ConflictResolved { agent_id: id, reason: String::new() }));
        for order in [[(5, &conflict), (6, &resolved)], [(6, &resolved), (5, &conflict)]] {
            let members = Members::default();
            members.apply(1, &enrollment(&key, 1, at(0), "")).unwrap();
            for (index, entry) in order {
                members.apply(index, entry).unwrap();
                members.apply(index, entry).unwrap();
            }
            assert_eq!(members.agent(key.agent_id()).unwrap().state, AgentState::Enrolled);
        }
        let members = Members::default();
        members.apply(1, &enrollment(&key, 1, at(0), "")).unwrap();
        members.apply(2, &conflict).unwrap();
        assert_eq!(members.agent(key.agent_id()).unwrap().state, AgentState::Frozen);
    }

    #[test]
    fn a_token_lets_in_as_many_agents_as_it_may_however_they_race() {
        let members = Members::default();
        let secret = Secret::generate().unwrap();
        members.apply(0, &token(&secret, 2, at(100))).unwrap();
        let (a, b, c) = (new_key(), new_key(), new_key());

        let first = members.reserve(&secret, a.agent_id(), at(1)).unwrap();
        let again = members.reserve(&secret, a.agent_id(), at(1)).unwrap();
        let second = members.reserve(&secret, b.agent_id(), at(1)).unwrap();
        let used_up = TokenRefusal::UsedUp(secret.id());
        assert_eq!(members.reserve(&secret, c.agent_id(), at(1)).unwrap_err(), used_up);
        drop(again);
        assert_eq!(members.reserve(&secret, c.agent_id(), at(1)).unwrap_err(), used_up);

        members.apply(1, &enrollment(&a, 1, at(1), &secret.id().to_string())).unwrap();
        drop(first);
        assert_eq!(members.token(secret.id()).unwrap().used(), 1);
        assert!(members.reserve(&secret, a.agent_id(), at(2)).is_ok(), "the same agent uses nothing up");
        assert_eq!(members.reserve(&secret, c.agent_id(), at(2)).unwrap_err(), used_up);
        drop(second);
        assert!(members.reserve(&secret, c.agent_id(), at(2)).is_ok(), "what failed is free again");
    }

    #[test]
    fn a_token_that_is_wrong_ended_or_revoked_lets_nobody_in() {
        let members = Members::default();
        let secret = Secret::generate().unwrap();
        members.apply(0, &token(&secret, 1, at(100))).unwrap();
        let agent = new_key().agent_id();
        let other: Secret = format!("muster-{}-{}", secret.id(), "0".repeat(32)).parse().unwrap();
        assert_eq!(members.reserve(&other, agent, at(1)).unwrap_err(), TokenRefusal::Invalid);
        let foreign = Secret::generate().unwrap();
        assert_eq!(members.reserve(&foreign, agent, at(1)).unwrap_err(), TokenRefusal::Invalid);
        assert_eq!(members.reserve(&secret, agent, at(100)).unwrap_err(), TokenRefusal::Expired(secret.id()));
        let revoked = v1::TokenRevoked { token_id: secret.id().to_string() };
        members.apply(1, &act(at(2), Act::TokenRevoked(revoked))).unwrap();
        assert_eq!(members.reserve(&secret, agent, at(3)).unwrap_err(), TokenRefusal::Revoked(secret.id()));
        assert!(!format!("{secret:?}").contains(&secret.text()[24..]), "Debug shows the token");
        for bad in ["", "muster-", "muster-x-y", &secret.text().to_uppercase(), &format!("{}0", secret.text())] {
            assert!(bad.parse::<Secret>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_credential_is_good_until_it_is_revoked_and_open_calls_are_told() {
        let members = Members::default();
        let alice = Caller::new("c1", Role::Auditor, "alice").unwrap();
        let issued = v1::CredentialIssued {
            spiffe_id: alice.to_string(),
            serial: serial(9).to_string(),
            expire_time: Some(at(100).to_wire()),
            key_digest: vec![0; 32],
        };
        members.apply(0, &act(at(0), Act::CredentialIssued(issued))).unwrap();
        assert_eq!(members.check(&alice, serial(9), at(1)), Ok(()));
        assert_eq!(members.check(&alice, serial(9), at(100)), Err(Refusal::Expired { at: at(100) }));
        let mallory = Caller::new("c1", Role::Admin, "alice").unwrap();
        assert_eq!(members.check(&mallory, serial(9), at(1)), Err(Refusal::Unknown));

        let mut revocations = members.revocations();
        revocations.mark_unchanged();
        let revoked = v1::CredentialRevoked { serial: serial(9).to_string(), reason: "lost".into() };
        members.apply(1, &act(at(2), Act::CredentialRevoked(revoked))).unwrap();
        assert!(revocations.has_changed().unwrap());
        assert_eq!(members.check(&alice, serial(9), at(3)), Err(Refusal::CredentialRevoked));
    }

    #[test]
    fn an_entry_with_a_field_that_is_none_changes_nothing() {
        let members = Members::default();
        let key = new_key();
        let mut forged = enrollment(&key, 1, at(0), "");
        if let Some(Entry::Enrollment(enrollment)) = &mut forged.entry {
            enrollment.agent_id = vec![0; 16];
        }
        assert!(matches!(members.apply(0, &forged), Err(Error::Field { field: "agent_id", .. })));
        assert!(members.agents().is_empty());
        assert!(matches!(Members::load([(3, [0xff_u8])]), Err(Error::Decode { index: 3, .. })));
    }
}
