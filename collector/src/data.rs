//! Where things are in the data folder.

use std::path::{Path, PathBuf};

/// A data folder.
#[derive(Clone, Debug)]
pub struct Data(PathBuf);

impl Data {
    /// Returns the data folder at `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Returns the folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the file of the settings.
    pub fn config(&self) -> PathBuf {
        self.0.join(crate::config::FILE_NAME)
    }

    /// Returns the folder of the authority.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// Returns the folder of the evidence log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Returns the file of the key that signs checkpoints.
    pub fn log_key(&self) -> PathBuf {
        self.0.join("log.key")
    }

    /// Returns the folder of the inbox.
    pub fn inbox(&self) -> PathBuf {
        self.0.join("inbox")
    }

    /// Returns the file of the views.
    pub fn views(&self) -> PathBuf {
        self.0.join("views.sqlite")
    }

    /// Returns the folder of snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// Returns the file of the first admin's credential.
    pub fn admin(&self) -> PathBuf {
        self.0.join("admin.pem")
    }
}
