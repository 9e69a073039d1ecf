//! An enrolled identity: both keys, and the certificate that the collector gave.

use std::sync::Arc;

use anyhow::Context as _;
use muster_proto::{
    id::{AgentId, Digest},
    seal::{ENROLL_DOMAIN, EvidenceKey, EvidencePublicKey, REJOIN_DOMAIN},
    v1::{self, enrollment_service_client::EnrollmentServiceClient},
};
use rustls::{
    ClientConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sha2::{Digest as _, Sha256};
use tonic::{Status, transport::Channel};

use super::wire::{Credential, Target};
use crate::harness::now;

/// Keys of an agent that is about to enrol.
pub struct Keys {
    /// Signs reports.
    pub evidence: EvidenceKey,
    /// Its PKCS#8 form.
    pub evidence_pkcs8: Vec<u8>,
    /// Holds the TLS connection.
    pub tls: rcgen::KeyPair,
}

impl Keys {
    /// Makes both keys.
    ///
    /// # Panics
    ///
    /// When the machine gives no randomness.
    pub fn generate() -> Self {
        let (evidence, evidence_pkcs8) = EvidenceKey::generate().expect("an evidence key");
        let tls = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a TLS key");
        Self { evidence, evidence_pkcs8, tls }
    }

    /// Returns the request that enrols these keys with `token`, as it should be.
    ///
    /// # Panics
    ///
    /// When the certificate request cannot be made.
    pub fn request(&self, token: &str, hostname: &str) -> v1::EnrollAgentRequest {
        let csr = csr(&self.tls);
        v1::EnrollAgentRequest {
            token: token.to_owned(),
            evidence_public_key: self.evidence.public_key().to_vec(),
            proof: self.evidence.sign(ENROLL_DOMAIN, &Sha256::digest(&csr)).to_vec(),
            csr,
            claim: Some(v1::HostClaim {
                hostname: hostname.to_owned(),
                machine_id_digest: Digest::of("muster/machine-id/v1", &[hostname.as_bytes()]).to_string(),
                hardware_serial: String::new(),
                agent_version: "0.1.0".to_owned(),
            }),
        }
    }

    /// Returns the identity that the collector's answer makes of these keys.
    ///
    /// # Errors
    ///
    /// When the answer holds no usable certificate.
    pub fn identity(self, target: &Target, answer: Option<v1::AgentIdentity>) -> anyhow::Result<Identity> {
        let answer = answer.context("no identity")?;
        let id = AgentId::from_slice(&answer.agent_id).context("agent id")?;
        anyhow::ensure!(id == self.evidence.agent_id(), "the collector gave another agent id");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.tls.serialize_der()));
        let chain = Credential::from_pem(answer.certificate_chain_pem.as_bytes(), self.tls.serialize_pem().as_bytes())?;
        let credential = Credential { chain: chain.chain, key };
        Ok(Identity {
            id,
            tls: target.tls(Some(&credential))?,
            target: target.clone(),
            log_key: answer.log_key,
            keys: self,
            credential,
        })
    }
}

/// An enrolled agent.
pub struct Identity {
    /// Its id.
    pub id: AgentId,
    /// Both its keys.
    pub keys: Keys,
    /// Certificate chain and key.
    pub credential: Credential,
    /// Key that verifies the collector's checkpoints.
    pub log_key: String,
    /// The collector.
    pub target: Target,
    tls: Arc<ClientConfig>,
}

impl Identity {
    /// Enrols a new agent.
    ///
    /// # Errors
    ///
    /// When the collector refuses.
    pub async fn enroll(target: &Target, token: &str, hostname: &str) -> anyhow::Result<Self> {
        let keys = Keys::generate();
        let answer = enroll(target, keys.request(token, hostname)).await?;
        keys.identity(target, answer.identity)
    }

    /// Opens a connection with its certificate.
    ///
    /// # Errors
    ///
    /// When the collector does not take it.
    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        self.target.channel(self.tls.clone()).await
    }

    /// Returns its TLS settings.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls.clone()
    }

    /// Returns the public half of its evidence key.
    ///
    /// # Panics
    ///
    /// Never: the key was made here.
    pub fn public_key(&self) -> EvidencePublicKey {
        EvidencePublicKey::new(&self.keys.evidence.public_key()).expect("an own key is a good one")
    }

    /// Returns the request by which it would rejoin, as it should be.
    pub fn rejoin_request(&self) -> v1::RejoinAgentRequest {
        let (csr, time) = (csr(&self.keys.tls), now());
        let message = [Sha256::digest(&csr).as_slice(), &time.seconds().to_be_bytes()].concat();
        v1::RejoinAgentRequest {
            agent_id: self.id.as_bytes().to_vec(),
            csr,
            proof: self.keys.evidence.sign(REJOIN_DOMAIN, &message).to_vec(),
            request_time: Some(time.to_wire()),
        }
    }
}

/// Sends an enrolment request on a connection of its own.
///
/// # Errors
///
/// What the collector answers; `UNAVAILABLE` when there is no connection.
pub async fn enroll(target: &Target, request: v1::EnrollAgentRequest) -> Result<v1::EnrollAgentResponse, Status> {
    let answer = enrollment(target).await?.enroll_agent(request).await?;
    Ok(answer.into_inner())
}

/// Opens a connection that may only enrol.
///
/// # Errors
///
/// `UNAVAILABLE` when there is none.
pub async fn enrollment(target: &Target) -> Result<EnrollmentServiceClient<Channel>, Status> {
    let unavailable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let tls = target.tls(None).map_err(|error| unavailable(&error))?;
    Ok(EnrollmentServiceClient::new(target.channel(tls).await.map_err(|error| unavailable(&error))?))
}

/// Returns a certificate request signed by `key`.
///
/// # Panics
///
/// When it cannot be made.
pub fn csr(key: &rcgen::KeyPair) -> Vec<u8> {
    let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.serialize_request(key).expect("a certificate request").der().to_vec()
}
