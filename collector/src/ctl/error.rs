//! What goes wrong between a person and the collector, as sentences that say what to do.

use std::{io, path::PathBuf};

use muster_proto::{caller::Caller, time::Timestamp};
use tonic_types::StatusExt as _;

use super::print::safe;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file does not follow its format.
    #[error("{}:{line}: {reason}; the keys are collector, credential and output", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A file of controls is one that a collector refuses.
    #[error("{}: {source}; try it: musterctl controls test {}", path.display(), path.display())]
    Controls {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<crate::control::Error>,
    },
    /// No credential was named and none is in its usual place.
    #[error(
        "no credential: name one with --credential or MUSTER_CREDENTIAL; on the collector's host run as the user who owns {}",
        place.display()
    )]
    NoCredential {
        /// The usual place.
        place: PathBuf,
    },
    /// The credential cannot be read.
    #[error(
        "cannot read the credential {}: {source}; run as the user who owns it, or name your own with --credential or MUSTER_CREDENTIAL \
         (an admin makes one: musterctl credentials create)",
        path.display()
    )]
    CredentialFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The credential's file is not one.
    #[error("{} is not a credential: {reason}; it holds a private key, its certificate chain and the CA, as PEM", path.display())]
    Credential {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The credential is not valid now.
    #[error(
        "the credential {who} was valid from {from} to {until}, and it is {now}; ask an admin for another one \
         (musterctl credentials create), or set this machine's clock"
    )]
    Expired {
        /// Whose.
        who: String,
        /// Start.
        from: Timestamp,
        /// End.
        until: Timestamp,
        /// This machine's clock.
        now: Timestamp,
    },
    /// The collector's address is not one.
    #[error("{} is not an address of a collector: expected https://HOST:PORT", safe(.0))]
    Address(String),
    /// Nothing answers at the address.
    #[error("cannot reach the collector at {address}: {source}; is it running, and is --collector right?")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The other end is not the collector that the credential belongs to.
    #[error(
        "the collector at {address} is not trusted: {reason}; the credential must come from this collector, and its certificate must \
         name the host that --collector names"
    )]
    Untrusted {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The collector closed the connection instead of answering.
    #[error(
        "the collector at {address} refused the credential {who} ({reason}); it may be revoked, or belong to another collector: ask an \
         admin for another one (musterctl credentials create)"
    )]
    Refused {
        /// Where.
        address: String,
        /// Whose.
        who: String,
        /// What was seen.
        reason: String,
    },
    /// The collector answered with an error.
    #[error("{0}")]
    Answer(String),
    /// The collector's answer does not follow the contract.
    #[error("the collector's answer is not one of the contract: {0}")]
    Contract(&'static str),
    /// A key could not be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Print(io::Error),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Error {
    /// Returns the sentence for what the collector answered to `caller`.
    pub fn from_status(status: &tonic::Status, address: &str, caller: Option<&Caller>) -> Self {
        let who = caller.map_or_else(|| "(of no role)".to_owned(), ToString::to_string);
        if let Some(reason) = broken_connection(status) {
            return Self::Refused { address: address.to_owned(), who, reason };
        }
        let reason =
            status.get_details_error_info().map(|info| format!(" ({})", safe(&info.reason))).unwrap_or_default();
        let message = safe(status.message());
        let message = if message.is_empty() { safe(&status.code().to_string()) } else { message };
        // What the collector says itself has no cause on this side.
        if reason.is_empty() && std::error::Error::source(status).is_some() {
            return Self::Answer(format!(
                "lost the connection to the collector at {address}: {message}; is it running? try again"
            ));
        }
        Self::Answer(match status.code() {
            tonic::Code::PermissionDenied => {
                format!("not allowed for {who}: {message}{reason}")
            }
            tonic::Code::Unauthenticated => format!("the collector does not know {who}: {message}{reason}"),
            tonic::Code::Unavailable => format!("the collector cannot answer now: {message}{reason}; try again"),
            tonic::Code::Unimplemented => format!("this collector is too old for that: {message}{reason}"),
            _ => format!("{message}{reason}"),
        })
    }
}

/// Returns what ended the connection, when it was not an answer of the collector. With TLS 1.3 a client learns only with its first
/// request that its certificate was refused.
fn broken_connection(status: &tonic::Status) -> Option<String> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(safe(&tls.to_string()));
        }
        if error.is::<tonic::transport::Error>() {
            let mut last: &dyn std::error::Error = error;
            while let Some(next) = last.source() {
                if let Some(tls) = next.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
                    && let Some(tls) = tls.downcast_ref::<rustls::Error>()
                {
                    return Some(safe(&tls.to_string()));
                }
                last = next;
            }
            return Some(safe(&last.to_string()));
        }
        source = error.source();
    }
    None
}
