//! The one map from what went wrong to a gRPC status: code, ErrorInfo with a reason that the contract names, and a message
//! that says what to do. Causes inside the collector go to its log, never to the caller.

use std::{error::Error as StdError, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of every reason.
pub const DOMAIN: &str = "muster.v1";

macro_rules! reasons {
    ($($name:ident $text:literal $code:ident $doc:literal;)*) => {
        /// Why a call was refused or failed. The contract names each beside the RPCs that give it.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Reason {
            $(#[doc = $doc] $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns its name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns its status code.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    // Who calls.
    CertificateExpired "CERTIFICATE_EXPIRED" Unauthenticated "The caller's certificate ended while its connection was open.";
    CertificateUnknown "CERTIFICATE_UNKNOWN" PermissionDenied "The evidence log does not hold the caller's certificate.";
    CredentialRevoked "CREDENTIAL_REVOKED" PermissionDenied "The caller's credential was revoked.";
    AgentRevoked "AGENT_REVOKED" PermissionDenied "The agent was revoked.";
    AgentFrozen "AGENT_FROZEN" PermissionDenied "The agent is frozen by a conflict.";
    AgentUnknown "AGENT_UNKNOWN" PermissionDenied "No such agent was ever enrolled.";
    RoleNotAllowed "ROLE_NOT_ALLOWED" PermissionDenied "The caller's role may not call this RPC.";
    EnrollmentOnly "ENROLLMENT_ONLY" PermissionDenied "A connection without a certificate reaches enrolment alone.";
    RpcUnknown "RPC_UNKNOWN" Unimplemented "This collector has no such RPC.";
    RequestTimedOut "REQUEST_TIMED_OUT" DeadlineExceeded "The request's message did not arrive in time.";
    // Enrolment.
    TokenInvalid "TOKEN_INVALID" PermissionDenied "The token is none of this collector's.";
    TokenUsedUp "TOKEN_USED_UP" PermissionDenied "The token was used as often as it may be.";
    TokenExpired "TOKEN_EXPIRED" PermissionDenied "The token's end has come.";
    TokenRevoked "TOKEN_REVOKED" PermissionDenied "The token was revoked.";
    RequestInvalid "REQUEST_INVALID" InvalidArgument "A field is outside its range.";
    CsrInvalid "CSR_INVALID" InvalidArgument "The certificate request is not one, or not for a key that is taken.";
    ProofInvalid "PROOF_INVALID" InvalidArgument "The evidence key's signature does not verify.";
    TooManyAttempts "TOO_MANY_ATTEMPTS" ResourceExhausted "Too many attempts from this address, or in all.";
    // Reports.
    HelloExpected "HELLO_EXPECTED" InvalidArgument "The first step was not Hello.";
    HelloInvalid "HELLO_INVALID" InvalidArgument "A field of Hello is outside its range.";
    Draining "DRAINING" Unavailable "The collector is stopping.";
    DiskFull "DISK_FULL" Unavailable "The collector's disk is nearly full.";
    AlreadyStreaming "ALREADY_STREAMING" ResourceExhausted "Another stream of the agent is open.";
    Busy "BUSY" Unavailable "Too many entries wait for the log.";
    LogStopped "LOG_STOPPED" Unavailable "The log takes no entries: it found damage or the disk failed, or the collector stops.";
    // Administration.
    UsesInvalid "USES_INVALID" InvalidArgument "The number of uses is outside its range.";
    LifetimeInvalid "LIFETIME_INVALID" InvalidArgument "The lifetime is outside its range.";
    NoteInvalid "NOTE_INVALID" InvalidArgument "The note is too long or has control or invisible characters.";
    RoleInvalid "ROLE_INVALID" InvalidArgument "The role is none that a credential may have.";
    NameInvalid "NAME_INVALID" InvalidArgument "The name is not one.";
    ReasonInvalid "REASON_INVALID" InvalidArgument "The reason is empty, too long or has control or invisible characters.";
    ChangesInvalid "CHANGES_INVALID" InvalidArgument "A change of a file is not named as it is listed, or there are none or too many.";
    TimeoutInvalid "TIMEOUT_INVALID" InvalidArgument "The timeout is outside its range.";
    TokenNotFound "TOKEN_NOT_FOUND" NotFound "There is no such token.";
    CredentialNotFound "CREDENTIAL_NOT_FOUND" NotFound "There is no such credential.";
    LastAdmin "LAST_ADMIN" FailedPrecondition "It is the last credential that may issue others.";
    NotFrozen "NOT_FROZEN" FailedPrecondition "The agent is not frozen.";
    // Questions.
    PageSizeInvalid "PAGE_SIZE_INVALID" InvalidArgument "The page size is negative.";
    PageTokenInvalid "PAGE_TOKEN_INVALID" InvalidArgument "The page token is none, or belongs to another request.";
    FilterInvalid "FILTER_INVALID" InvalidArgument "The filter does not parse, or names no field.";
    HostNotFound "HOST_NOT_FOUND" NotFound "There is no such host.";
    HostAmbiguous "HOST_AMBIGUOUS" InvalidArgument "Several hosts have this name or prefix.";
    ControlNotFound "CONTROL_NOT_FOUND" NotFound "There is no such control.";
    PathInvalid "PATH_INVALID" InvalidArgument "The path is not one, as facts write them, or the digest beside it is none.";
    WatchLagged "WATCH_LAGGED" DataLoss "The reader fell behind.";
    LogEmpty "LOG_EMPTY" FailedPrecondition "The log has no checkpoint.";
    LogPositionInvalid "LOG_POSITION_INVALID" InvalidArgument "There is no such position of the log.";
    // Snapshots.
    AsOfInFuture "AS_OF_IN_FUTURE" InvalidArgument "The instant is in the future.";
    SnapshotTooLarge "SNAPSHOT_TOO_LARGE" ResourceExhausted "A snapshot of that scope would be too large.";
    SnapshotNotFound "SNAPSHOT_NOT_FOUND" NotFound "There is no such snapshot.";
    // The collector.
    Internal "INTERNAL" Internal "Something failed inside the collector; its log says what.";
}

/// Returns the status of `reason`; `message` says what was wrong and what to do.
pub fn refuse(reason: Reason, message: impl Into<String>) -> Status {
    with_details(reason, message, ErrorDetails::new())
}

/// Returns the status of `reason`, with the field of the request that is wrong.
pub fn invalid(reason: Reason, field: &str, message: impl Into<String>) -> Status {
    let message = message.into();
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, &message);
    with_details(reason, format!("{field}: {message}"), details)
}

/// Returns the status of `reason`, with the time after which another attempt makes sense.
pub fn retry_after(reason: Reason, message: impl Into<String>, delay: Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(delay));
    with_details(reason, message, details)
}

/// Logs what failed inside the collector, with its causes, and returns a status that tells the caller no more than that.
pub fn internal(what: &str, error: &dyn StdError) -> Status {
    tracing::error!(error = %chain(error), "{what}");
    refuse(Reason::Internal, format!("{what}; the collector's log says why"))
}

/// Returns `error` and its causes in one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn with_details(reason: Reason, message: impl Into<String>, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason.as_str(), DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(reason.code(), message, details)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_status_carries_its_reason_and_domain() {
        for reason in Reason::ALL {
            let status = refuse(*reason, "what to do");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), DOMAIN));
            assert_eq!(status.code(), reason.code());
        }
    }

    #[test]
    fn the_contract_names_no_reason_that_is_not_here() {
        let known: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(known.len(), Reason::ALL.len());
        let codes: BTreeSet<&str> = [
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "FAILED_PRECONDITION",
            "PERMISSION_DENIED",
            "DATA_LOSS",
            "UNAUTHENTICATED",
            "UNIMPLEMENTED",
            "UNAVAILABLE",
            "RESOURCE_EXHAUSTED",
        ]
        .into_iter()
        .collect();
        let contract = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/muster/v1");
        let mut seen = BTreeSet::new();
        for file in std::fs::read_dir(contract).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            // Reasons stand in parentheses after a code: `NOT_FOUND (HOST_NOT_FOUND, ...)`.
            let text = text.replace("\n  // ", " ").replace("\n// ", " ");
            for code in &codes {
                for rest in text.split(&format!("{code} (")).skip(1) {
                    let list = rest.split(')').next().unwrap();
                    seen.extend(list.split(", ").map(str::to_owned));
                }
            }
        }
        assert!(seen.len() > 20, "{seen:?}");
        for reason in &seen {
            assert!(known.contains(reason.as_str()), "{reason} is in the contract and not in the map");
        }
    }

    #[test]
    fn an_invalid_field_is_named() {
        let status = invalid(Reason::UsesInvalid, "uses", "at most 100000");
        assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "uses");
        assert_eq!(status.message(), "uses: at most 100000");
    }
}
