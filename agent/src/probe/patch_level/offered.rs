//! When something was first seen, kept from look to look: systems other than Linux do not say since when an update is on offer.

use std::collections::BTreeMap;

use muster_proto::{fact::Unknown, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    host,
    probe::{Look, memory},
};

/// Name of the file in the probe's memory.
const FIRST_SEEN: &str = "first_seen.json";
const VERSION: u32 = 1;

#[derive(Default, Deserialize, Serialize)]
struct FirstSeen {
    version: u32,
    times: BTreeMap<String, Timestamp>,
}

/// Returns since when each of `keys` is there without a break. What is not among them is forgotten.
pub(super) fn first_seen(
    look: &Look<'_>,
    keys: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Timestamp>, Unknown> {
    let before: FirstSeen = memory::read_json(&look.memory.join(FIRST_SEEN)).unwrap_or_default();
    let time = |key: &String| before.times.get(key).copied().unwrap_or(look.now).min(look.now);
    let times: BTreeMap<_, _> = keys.into_iter().map(|key| (key.clone(), time(&key))).collect();
    memory::write_json(look.memory, FIRST_SEEN, &FirstSeen { version: VERSION, times: times.clone() })
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    Ok(times)
}
