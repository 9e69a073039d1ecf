//! Who may call what: one table, and the identity that a certificate carries.

use std::{fmt, str::FromStr};

use crate::id::AgentId;

/// What a caller may be. A certificate carries exactly one role.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// A host's agent: its own reports, nothing else.
    Agent,
    /// Reads states of the fleet.
    Viewer,
    /// Reads states and takes evidence away.
    Auditor,
    /// Makes enrolment tokens, nothing else.
    Enroller,
    /// Runs the fleet.
    Operator,
    /// Decides who may do what.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [Self::Agent, Self::Viewer, Self::Auditor, Self::Enroller, Self::Operator, Self::Admin];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Enroller => "enroller",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(Error::Role)
    }
}

/// A certificate names no caller of this fleet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The URI is not `spiffe://<collector>/<role>/<name>`.
    #[error("not a SPIFFE id of the form spiffe://<collector>/<role>/<name>")]
    SpiffeId,
    /// The role is none of the six.
    #[error("not a role: expected agent, viewer, auditor, enroller, operator or admin")]
    Role,
    /// The name is not one.
    #[error("not a name: expected 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
    Name,
}

/// Who calls: what the URI of the certificate's one subject alternative name says.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Caller {
    fleet: String,
    role: Role,
    name: String,
}

impl Caller {
    /// Returns the caller `name` with `role` in the fleet of the collector `fleet`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] when fleet or name is not one; an agent's name is its id.
    pub fn new(fleet: &str, role: Role, name: &str) -> Result<Self, Error> {
        if !is_name(fleet) || !is_name(name) || (role == Role::Agent && name.parse::<AgentId>().is_err()) {
            return Err(Error::Name);
        }
        Ok(Self { fleet: fleet.to_owned(), role, name: name.to_owned() })
    }

    /// Returns the agent `id` in the fleet of the collector `fleet`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] when fleet is not a name.
    pub fn agent(fleet: &str, id: AgentId) -> Result<Self, Error> {
        Self::new(fleet, Role::Agent, &id.to_string())
    }

    /// Returns its role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns its fleet: the name of the collector that issued the certificate.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the agent's id, when it is one.
    pub fn agent_id(&self) -> Option<AgentId> {
        match self.role {
            Role::Agent => self.name.parse().ok(),
            Role::Viewer | Role::Auditor | Role::Enroller | Role::Operator | Role::Admin => None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.fleet, self.role, self.name)
    }
}

impl FromStr for Caller {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.strip_prefix("spiffe://").ok_or(Error::SpiffeId)?.split('/');
        let (Some(fleet), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::SpiffeId);
        };
        Self::new(fleet, role.parse()?, name)
    }
}

/// Returns whether `text` is a name of a fleet, person or program: 1 to 64 of a-z, 0-9, `.`, `_` and `-`, neither `.` nor `..`.
pub fn is_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) && text != "." && text != ".."
}

const READERS: &[Role] = &[Role::Viewer, Role::Auditor, Role::Operator, Role::Admin];
const EXPORTERS: &[Role] = &[Role::Auditor, Role::Operator, Role::Admin];
const ENROLLERS: &[Role] = &[Role::Enroller, Role::Operator, Role::Admin];
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
const ADMINS: &[Role] = &[Role::Admin];
const AGENTS: &[Role] = &[Role::Agent];

/// Who may call each RPC with a certificate. An RPC without a row is refused.
///
/// `EnrollAgent` and `RejoinAgent` have an empty row: only connections for enrolment, which have no certificate, reach them.
pub const ALLOWED: &[(&str, &[Role])] = &[
    ("/muster.v1.AdminService/AcknowledgeFileChanges", OPERATORS),
    ("/muster.v1.AdminService/CreateToken", ENROLLERS),
    ("/muster.v1.AdminService/IssueCredential", ADMINS),
    ("/muster.v1.AdminService/ListCredentials", ADMINS),
    ("/muster.v1.AdminService/ListTokens", ENROLLERS),
    ("/muster.v1.AdminService/LookNow", OPERATORS),
    ("/muster.v1.AdminService/ResolveConflict", OPERATORS),
    ("/muster.v1.AdminService/RevokeAgent", OPERATORS),
    ("/muster.v1.AdminService/RevokeCredential", ADMINS),
    ("/muster.v1.AdminService/RevokeToken", ENROLLERS),
    ("/muster.v1.EnrollmentService/EnrollAgent", &[]),
    ("/muster.v1.EnrollmentService/RejoinAgent", &[]),
    ("/muster.v1.EnrollmentService/RenewCertificate", AGENTS),
    ("/muster.v1.FleetService/GetControl", READERS),
    ("/muster.v1.FleetService/GetFleetSummary", READERS),
    ("/muster.v1.FleetService/GetHost", READERS),
    ("/muster.v1.FleetService/ListControls", READERS),
    ("/muster.v1.FleetService/ListExplainedChanges", READERS),
    ("/muster.v1.FleetService/ListFileBaselines", READERS),
    ("/muster.v1.FleetService/ListFileChanges", READERS),
    ("/muster.v1.FleetService/ListFileHolders", READERS),
    ("/muster.v1.FleetService/ListFindings", READERS),
    ("/muster.v1.FleetService/ListHosts", READERS),
    ("/muster.v1.FleetService/WatchVerdicts", READERS),
    ("/muster.v1.IngestService/StreamReports", AGENTS),
    ("/muster.v1.LogService/GetCheckpoint", READERS),
    ("/muster.v1.LogService/GetConsistencyProof", READERS),
    ("/muster.v1.LogService/GetInclusionProof", EXPORTERS),
    ("/muster.v1.SnapshotService/CreateSnapshot", EXPORTERS),
    ("/muster.v1.SnapshotService/DownloadSnapshot", EXPORTERS),
    ("/muster.v1.SnapshotService/ListSnapshots", EXPORTERS),
    // Services of the gRPC project, for clients that know nothing of the contract.
    ("/grpc.health.v1.Health/Check", READERS),
    ("/grpc.health.v1.Health/List", READERS),
    ("/grpc.health.v1.Health/Watch", READERS),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READERS),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READERS),
];

/// Returns whether `role` may call the RPC at `path`, such as `/muster.v1.FleetService/ListHosts`.
pub fn may_call(role: Role, path: &str) -> bool {
    ALLOWED.iter().any(|(allowed, roles)| *allowed == path && roles.contains(&role))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let mut rpcs = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package() == "muster.v1") {
            for service in &file.service {
                for method in &service.method {
                    rpcs.insert(format!("/muster.v1.{}/{}", service.name(), method.name()));
                }
            }
        }
        let rows: Vec<_> =
            ALLOWED.iter().map(|(path, _)| (*path).to_owned()).filter(|p| p.starts_with("/muster.")).collect();
        assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), rpcs);
        assert_eq!(rows.len(), rpcs.len());
    }

    #[test]
    fn a_path_that_is_not_the_row_is_refused() {
        for path in [
            "muster.v1.FleetService/ListHosts",
            "/muster.v1.FleetService/listHosts",
            "//muster.v1.FleetService/ListHosts",
            "",
        ] {
            assert!(!Role::ALL.iter().any(|role| may_call(*role, path)), "{path}");
        }
    }

    #[test]
    fn a_caller_is_its_spiffe_id_and_nothing_near_it() {
        let id = "spiffe://c1/auditor/alice";
        assert_eq!(id.parse::<Caller>().unwrap().to_string(), id);
        for bad in [
            "spiffe://c1/auditor/alice/x",
            "spiffe://c1/auditor/",
            "spiffe://c1/Auditor/alice",
            "spiffe://c1/agent/alice",
            "https://c1/auditor/alice",
            "spiffe://c1/auditor/al ice",
            "spiffe://c1/auditor/..",
        ] {
            assert!(bad.parse::<Caller>().is_err(), "{bad}");
        }
    }
}
