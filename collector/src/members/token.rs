//! Enrolment tokens: their text, their count of uses, and why one is refused. The text is shown once and nowhere kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use aws_lc_rs::rand;
use muster_proto::{
    id::{AgentId, Digest, TokenId},
    time::Timestamp,
};

use super::Members;

/// An enrolment token, without its text.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// How often it may be used.
    pub uses: u32,
    /// When it was made, collector's clock.
    pub created: Timestamp,
    /// Until when it may be used, exclusive.
    pub expires: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// What it is for.
    pub note: String,
    /// Agents that it let in, by the log.
    pub(super) used_by: BTreeSet<AgentId>,
    /// Agents that are being let in, with the number of their requests.
    pub(super) reserved: BTreeMap<AgentId, u32>,
}

impl Token {
    /// Returns how often it was used, by the log.
    pub fn used(&self) -> u32 {
        u32::try_from(self.used_by.len()).unwrap_or(u32::MAX)
    }

    /// Says whether it lets `agent` in at `now`.
    pub(super) fn admit(&self, agent: AgentId, now: Timestamp) -> Result<(), TokenRefusal> {
        if self.revoked.is_some() {
            return Err(TokenRefusal::Revoked(self.id));
        }
        if now >= self.expires {
            return Err(TokenRefusal::Expired(self.id));
        }
        if self.used_by.contains(&agent) || self.reserved.contains_key(&agent) {
            return Ok(());
        }
        let under_way = self.reserved.keys().filter(|agent| !self.used_by.contains(*agent)).count();
        if self.used_by.len() + under_way >= self.uses as usize {
            return Err(TokenRefusal::UsedUp(self.id));
        }
        Ok(())
    }
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenRefusal {
    /// It is none of this collector's.
    Invalid,
    /// It was used as often as it may be.
    UsedUp(TokenId),
    /// Its end has come.
    Expired(TokenId),
    /// It was revoked.
    Revoked(TokenId),
}

/// Text of a token: `muster-`, its id (16 hex digits), `-` and 128 random bits (32 hex digits).
///
/// It is compared and logged by its digest alone; `Debug` shows the id.
#[derive(Clone)]
pub struct Secret {
    id: TokenId,
    text: String,
}

impl Secret {
    /// Draws a new token.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        rand::fill(&mut id)?;
        rand::fill(&mut secret)?;
        let id = TokenId::new(id);
        Ok(Self { id, text: format!("muster-{id}-{}", hex::encode(secret)) })
    }

    /// Returns the id in it.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the text, to be shown once.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns SHA-256 of the text.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(self.text.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ...)", self.id)
    }
}

impl FromStr for Secret {
    type Err = TokenRefusal;

    fn from_str(text: &str) -> Result<Self, TokenRefusal> {
        let parts = text.strip_prefix("muster-").and_then(|rest| rest.split_once('-'));
        let Some((id, secret)) = parts else { return Err(TokenRefusal::Invalid) };
        let id = id.parse().map_err(|_| TokenRefusal::Invalid)?;
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if secret.len() != 32 || !secret.bytes().all(is_digit) {
            return Err(TokenRefusal::Invalid);
        }
        Ok(Self { id, text: text.to_owned() })
    }
}

/// A use of a token that is set aside for an agent while its enrolment is written. Dropped, it is free again, unless the
/// enrolment's entry has been applied.
#[derive(Debug)]
pub struct Reservation {
    pub(super) members: Members,
    pub(super) token: TokenId,
    pub(super) agent: AgentId,
}

impl Reservation {
    /// Returns the token's id.
    pub fn token(&self) -> TokenId {
        self.token
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.members.release(self.token, self.agent);
    }
}
