//! Sensors, clock, logging, boot, capacity, backup.

use super::Expected;

pub(super) const ROWS: &[Expected] = &[];
