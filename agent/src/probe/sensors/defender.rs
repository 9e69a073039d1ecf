//! What the managed settings of Microsoft Defender for Endpoint on Linux say.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, SensorMode};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Settings that an organisation sets; they go before those of the host (Microsoft's documentation, "Set preferences").
const MANAGED: &str = "/etc/opt/microsoft/mdatp/managed/mdatp_managed.json";

/// Returns the mode that the managed settings demand.
pub(super) fn mode(host: &dyn Host) -> Reading<SensorMode> {
    let bytes = match host.read(Path::new(MANAGED), SMALL_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if host::cause(&error) == Cause::Absent => {
            return Reading::unknown(
                Cause::Unsupported,
                format!("{MANAGED} is not there; settings of the host are not read"),
            );
        }
        Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {MANAGED}"), &error) },
    };
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Reading<SensorMode> {
    let Ok(settings) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return Reading::unknown(Cause::Garbled, format!("{MANAGED} is not JSON"));
    };
    match settings.pointer("/antivirusEngine/enforcementLevel").and_then(serde_json::Value::as_str) {
        Some("real_time") => Reading::Known(SensorMode::Block),
        Some("passive") => Reading::Known(SensorMode::Detect),
        Some("on_demand") => Reading::Known(SensorMode::OnDemand),
        Some(_) => Reading::unknown(Cause::Garbled, format!("{MANAGED} has an enforcement level that is not known")),
        None => Reading::unknown(Cause::Unsupported, format!("{MANAGED} sets no enforcement level")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_level_that_is_set_is_told() {
        let of = |level: &str| parse(format!("{{\"antivirusEngine\":{{\"enforcementLevel\":{level}}}}}").as_bytes());
        assert_eq!(of("\"real_time\""), Reading::Known(SensorMode::Block));
        assert_eq!(of("\"passive\""), Reading::Known(SensorMode::Detect));
        assert_eq!(of("\"on_demand\""), Reading::Known(SensorMode::OnDemand));
        for unknown in [of("\"other\""), of("1"), parse(b"{}"), parse(b"["), parse(b"")] {
            assert!(unknown.known().is_none(), "{unknown:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
