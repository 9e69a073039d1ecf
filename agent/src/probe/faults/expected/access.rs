//! Accounts, remote access, screen lock, removable media.

use super::Expected;

pub(super) const ROWS: &[Expected] = &[];
