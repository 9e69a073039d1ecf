//! Where actions of rsyslog.conf(5) send to.

use muster_proto::fact::Transmission;

use super::{
    super::{own::Own, url_host},
    tokens::Parameters,
};

/// Modules whose actions leave nothing of the log at another host.
const LOCAL: [&str; 10] =
    ["omdiscard", "omfile", "omjournal", "ommail", "ompipe", "omsnmp", "omstdout", "omtesting", "omusrmsg", "omuxsock"];

/// Returns the way of an action of the old form: `@host`, `@@host` or `:omrelp:host`, options in brackets before the host.
pub(super) fn old(action: &str, is_tls: bool, own: &Own) -> Option<Transmission> {
    let (way, rest) = if let Some(rest) = action.strip_prefix("@@") {
        (if is_tls { Transmission::SyslogTls } else { Transmission::SyslogTcp }, rest)
    } else if let Some(rest) = action.strip_prefix('@') {
        (Transmission::SyslogUdp, rest)
    } else {
        (Transmission::Relp, action.strip_prefix(":omrelp:")?)
    };
    let target = match rest.strip_prefix('(') {
        Some(options) => options.split_once(')')?.1,
        None => rest,
    };
    (!own.is_local(target)).then_some(way)
}

/// Returns the way of an action that sends to another host.
///
/// # Errors
///
/// Its module, where that is not known.
pub(super) fn action(parameters: &Parameters, own: &Own) -> Result<Option<Transmission>, String> {
    let is = |name, value: &str| values(parameters, name).any(|found| found == value);
    let kind = values(parameters, "type").next().unwrap_or_default();
    // What is not set is the host itself in the modules that have a default, and a mistake in the others.
    let (way, target) = match kind {
        "omfwd" if is("streamdrivermode", "1") => (Transmission::SyslogTls, "target"),
        "omfwd" if is("protocol", "tcp") => (Transmission::SyslogTcp, "target"),
        "omfwd" | "omudpspoof" => (Transmission::SyslogUdp, "target"),
        "omrelp" => (Transmission::Relp, "target"),
        "omelasticsearch" | "omhttp" => (Transmission::Http, "server"),
        "omkafka" => (Transmission::Other, "broker"),
        "omamqp1" | "omrabbitmq" => (Transmission::Other, "host"),
        local if LOCAL.contains(&local) || !local.starts_with("om") => return Ok(None),
        other => return Err(other.to_owned()),
    };
    let is_elsewhere = |target: &str| !own.is_local(url_host(target));
    Ok(values(parameters, target).any(is_elsewhere).then_some(way))
}

/// Returns the values of a parameter.
pub(super) fn values<'a>(parameters: &'a Parameters, name: &str) -> impl Iterator<Item = &'a str> {
    parameters.iter().filter(move |(found, _)| found == name).flat_map(|(_, values)| values).map(String::as_str)
}
