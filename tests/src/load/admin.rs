//! The RPCs of people and programs, called with a credential from a file.

use std::path::Path;

use anyhow::Context as _;
use muster_proto::v1::{
    self, admin_service_client::AdminServiceClient, fleet_service_client::FleetServiceClient,
    log_service_client::LogServiceClient,
};
use tonic::{Status, transport::Channel};

use super::wire::{Credential, Target};

/// A caller with a credential.
#[derive(Clone, Debug)]
pub struct Admin {
    channel: Channel,
}

impl Admin {
    /// Connects with the credential in `file`: key and certificates.
    ///
    /// # Errors
    ///
    /// When the file is not a credential, or the collector does not take it.
    pub async fn connect(target: &Target, file: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
        let credential = Credential::from_pem(&pem, &pem)?;
        Ok(Self { channel: target.channel(target.tls(Some(&credential))?).await? })
    }

    /// Returns the client of the fleet's state.
    pub fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    /// Returns the client of changes.
    pub fn changes(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// Returns the client of the evidence log.
    pub fn log(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone())
    }

    /// Makes a token for `uses` agents.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn token(&self, uses: u32) -> Result<v1::CreateTokenResponse, Status> {
        let request = v1::CreateTokenRequest { uses, lifetime_seconds: 0, note: "test".to_owned() };
        Ok(self.changes().create_token(request).await?.into_inner())
    }

    /// Returns a host with its facts and verdicts.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn host(&self, host: &str) -> Result<v1::GetHostResponse, Status> {
        let request = v1::GetHostRequest { host: host.to_owned() };
        Ok(self.fleet().get_host(request).await?.into_inner())
    }

    /// Returns what `control` says of `host`, or unspecified when it says nothing.
    ///
    /// # Errors
    ///
    /// What the collector answers.
    pub async fn verdict(&self, host: &str, control: &str) -> Result<v1::Verdict, Status> {
        let verdicts = self.host(host).await?.verdicts;
        let verdict = verdicts.iter().find(|verdict| verdict.control_id == control);
        Ok(verdict.map(v1::HostVerdict::verdict).unwrap_or_default())
    }
}
