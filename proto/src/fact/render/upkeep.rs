//! What keeps a host in order, as lines.

use super::{ITEMS, listed, more, table, text, unknown, value, yes_no};
use crate::fact::{Backup, Boot, Capacity, Clock, Forwarder, Logging, Reading, Sensor, Sensors};

pub(super) fn sensors(state: &Sensors) -> Vec<String> {
    let complete = match &state.complete {
        Reading::Known(true) => String::new(),
        Reading::Known(false) => ", not each could be looked for".to_owned(),
        Reading::Unknown { unknown: why } => format!(", whether there are others: {}", unknown(why)),
    };
    let mut lines = vec![format!("{} sensors by the table of {}{complete}", state.sensors.len(), state.table_time)];
    lines.extend(state.sensors.iter().take(ITEMS).map(sensor));
    lines.extend(more(state.sensors.len(), "sensors"));
    lines
}

fn sensor(sensor: &Sensor) -> String {
    let running = match &sensor.running {
        Reading::Known(true) => format!("runs (seen by its {})", sensor.seen.as_str()),
        Reading::Known(false) => "DOES NOT RUN".to_owned(),
        Reading::Unknown { unknown: why } => format!("whether it runs: {}", unknown(why)),
    };
    let definitions = match &sensor.definitions_time {
        None => String::new(),
        Some(time) => format!(", definitions of {}", text(time)),
    };
    format!(
        "{} ({}, {}) {}: {running}, mode {}{definitions}",
        sensor.product,
        sensor.vendor,
        sensor.kind.as_str().replace('_', " "),
        text(&sensor.version),
        value(&sensor.mode, |mode| mode.as_str().replace('_', " "))
    )
}

pub(super) fn clock(clock: &Clock) -> Vec<String> {
    let step = |reading: &Reading<u64>| value(reading, |millis| format!("at most {millis} ms"));
    let services: Vec<_> = clock
        .services
        .iter()
        .take(ITEMS)
        .map(|service| format!("{} ({})", service.name.as_str().replace('_', "-"), runs(&service.running)))
        .collect();
    table(&[
        ("synchronised", yes_no(&clock.synchronized)),
        ("off by", format!("{}, by estimate {}", step(&clock.max_error_millis), step(&clock.estimated_error_millis))),
        ("to correct", step(&clock.offset_millis)),
        ("kept by", listed(services, &clock.services_complete)),
        ("last set", text(&clock.last_sync_time)),
    ])
}

pub(super) fn boot(boot: &Boot) -> Vec<String> {
    table(&[
        ("firmware", value(&boot.firmware, |firmware| firmware.as_str().to_owned())),
        ("TPM", value(&boot.tpm, |tpm| tpm.as_str().trim_start_matches("tpm").replace('_', "."))),
        ("measured", yes_no(&boot.measured_boot)),
        ("IMA measures", yes_no(&boot.ima_measures)),
    ])
}

pub(super) fn capacity(capacity: &Capacity) -> Vec<String> {
    let share = |reading: &Reading<u64>| value(reading, |percent| format!("at most {percent} %"));
    let mut lines = table(&[("booted", text(&capacity.boot_time))]);
    lines.extend(capacity.volumes.iter().take(ITEMS).map(|volume| {
        let inodes = match &volume.inodes_percent {
            Reading::Known(0) => "without bound".to_owned(),
            inodes => share(inodes),
        };
        format!("{}  {}: used {}, inodes {inodes}", volume.mount_point, volume.file_system, share(&volume.used_percent))
    }));
    lines.extend(more(capacity.volumes.len(), "volumes"));
    lines
}

pub(super) fn backup(backup: &Backup) -> Vec<String> {
    let clients = backup.clients.iter().take(ITEMS).map(|client| client.product.to_string()).collect();
    let mut lines =
        table(&[("clients", listed(clients, &backup.complete)), ("table of", backup.table_time.to_string())]);
    lines.extend(backup.clients.iter().take(ITEMS).map(|client| {
        format!(
            "{} {} ({}): settings {}, last success {}",
            client.product,
            text(&client.version),
            client.program,
            yes_no(&client.has_settings),
            text(&client.last_success_time)
        )
    }));
    lines.extend(more(backup.clients.len(), "clients"));
    lines.extend(
        backup
            .stamps
            .iter()
            .take(ITEMS)
            .map(|stamp| format!("stamp {}: {}", stamp.path, text(&stamp.last_success_time))),
    );
    lines.extend(more(backup.stamps.len(), "stamps"));
    lines
}

pub(super) fn logging(logging: &Logging) -> Vec<String> {
    let audit = &logging.audit;
    let rules = match &audit.rules_digest {
        Reading::Known(digest) => format!("{} rules, sha256 {digest}", text(&audit.rules)),
        Reading::Unknown { .. } => format!("rules {}", text(&audit.rules)),
    };
    let mut lines = table(&[
        ("auditing", yes_no(&audit.enabled)),
        ("immutable", yes_no(&audit.immutable)),
        ("taken up", yes_no(&audit.daemon_running)),
        ("lost", value(&audit.lost, |lost| format!("at most {lost} of a backlog of {}", text(&audit.backlog_limit)))),
        ("audited", rules),
        ("journal", value(&logging.journal_storage, |storage| storage.as_str().to_owned())),
        ("kept since", text(&logging.kept_since_time)),
        (
            "sent by",
            listed(logging.forwarders.iter().take(ITEMS).map(forwarder).collect(), &logging.forwarders_complete),
        ),
    ]);
    lines.extend(more(logging.forwarders.len(), "programs"));
    lines
}

fn forwarder(forwarder: &Forwarder) -> String {
    let ways: Vec<_> = forwarder.ways.iter().take(ITEMS).map(|way| way.as_str().replace('_', " over ")).collect();
    let sends = match &forwarder.sends {
        Reading::Known(true) => format!("sends: {}", ways.join(", ")),
        Reading::Known(false) => "sends nothing".to_owned(),
        Reading::Unknown { unknown: why } => format!("whether it sends: {}", unknown(why)),
    };
    format!("{} ({}, {sends})", forwarder.program.as_str().replace('_', "-"), runs(&forwarder.running))
}

fn runs(running: &Reading<bool>) -> String {
    value(running, |&yes| if yes { "runs" } else { "does not run" }.to_owned())
}
