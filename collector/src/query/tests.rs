//! Questions about a fleet made in memory: filters, pages, order, counts.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    sync::Mutex,
};

use muster_proto::{
    fact::{Fact, Inbound, Reading},
    v1::fleet_service_server::FleetService as _,
};
use tokio_stream::StreamExt as _;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    control::sample,
    judge::{
        Follower,
        tests::{MemoryLog, PROBES, Sim, StillClock, act, at, open},
    },
};

#[derive(Default)]
struct Connected(HashSet<AgentId>);

impl Liveness for Connected {
    fn connected(&self, agent: AgentId) -> bool {
        self.0.contains(&agent)
    }

    fn last_seen(&self, _agent: AgentId) -> Option<Timestamp> {
        None
    }
}

struct Fleet {
    service: FleetService,
    follower: Follower,
    clock: StillClock,
    log: Arc<MemoryLog>,
    sims: Vec<Sim>,
}

/// Returns a fleet of five hosts: the first healthy and connected, the second open to IPv6, the third silent for days, the fourth
/// never heard of, the fifth revoked.
fn fleet(dir: &Path) -> Fleet {
    let mut sims: Vec<Sim> = (0..5).map(|_| Sim::new()).collect();
    let day = 86_400;
    let mut entries: Vec<Vec<u8>> = sims.iter().map(|sim| sim.enrollment(at(0))).collect();
    let named = |name: &str, is_open: bool, seconds: i64| {
        let mut facts = sample::healthy();
        for fact in &mut facts {
            match fact {
                Fact::System(Reading::Known(system)) => system.hostname = Reading::Known(name.into()),
                Fact::Firewall(Reading::Known(firewall)) if is_open => {
                    firewall.inbound_ipv6 = Reading::Known(Inbound::Allow);
                }
                Fact::Backup(Reading::Known(backup)) => {
                    backup.clients[0].last_success_time = Reading::Known(at(seconds));
                }
                _ => {}
            }
        }
        facts
    };
    entries.push(sims[2].facts(at(10), &named("old", false, 10), true));
    entries.push(sims[4].facts(at(10), &named("gone", true, 10), true));
    let revoked = v1::AgentRevoked { agent_id: sims[4].id().as_bytes().to_vec(), reason: "r".to_owned() };
    entries.push(act(at(11), v1::act::Act::AgentRevoked(revoked)));
    entries.push(sims[0].facts(at(4 * day), &named("web-1", false, 4 * day), true));
    entries.push(sims[1].facts(at(4 * day), &named("db-1", true, 4 * day), true));
    let size = entries.len() as u64;
    let log = Arc::new(MemoryLog(Mutex::new(entries)));
    let clock = StillClock::default();
    *clock.0.lock().unwrap() = at(4 * day + 60).seconds();
    let (views, mut follower) = open(&dir.join("v"), &log, &clock);
    follower.catch_up(size).unwrap();
    let liveness = Arc::new(Connected(HashSet::from([sims[0].id()])));
    let service = FleetService::new("c", views, follower.judge(), liveness, Arc::new(clock.clone()));
    Fleet { service, follower, clock, log, sims }
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn counts_add_up_to_the_hosts_that_are_not_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let summary =
        fleet.service.get_fleet_summary(Request::new(v1::GetFleetSummaryRequest {})).await.unwrap().into_inner();
    assert_eq!((summary.hosts, summary.connected_hosts, summary.log_size), (4, 1, 10));
    let states: Vec<u64> = summary.states.iter().map(|state| state.hosts).collect();
    assert_eq!(states, [1, 3, 0, 1]);
    assert!(summary.controls.len() >= 15);
    for control in &summary.controls {
        let c = control.counts.unwrap();
        let sum = c.pass + c.fail + c.unknown + c.no_data + c.not_applicable + c.excepted;
        assert_eq!(sum, 4, "{}", control.control_id);
    }
    let counts = |id: &str| summary.controls.iter().find(|c| c.control_id == id).unwrap().counts.unwrap();
    assert_eq!((counts("FWL-01").pass, counts("FWL-01").fail, counts("FWL-01").no_data), (1, 1, 2));
    assert_eq!((counts("INV-02").pass, counts("INV-02").fail, counts("INV-02").no_data), (2, 1, 1));
}

#[tokio::test]
async fn hosts_and_findings_are_listed_in_order_and_by_pages_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let list = |filter: &str, page_size: i32, page_token: &str| {
        let request = v1::ListHostsRequest { page_size, page_token: page_token.to_owned(), filter: filter.to_owned() };
        let service = fleet.service.clone();
        async move { service.list_hosts(Request::new(request)).await.map(Response::into_inner) }
    };
    let all = list("", 0, "").await.unwrap();
    assert!(all.hosts.is_sorted_by(|a, b| a.id < b.id) && all.hosts.len() == 5 && all.next_page_token.is_empty());
    let first = list("", 2, "").await.unwrap();
    let second = list("", 2, &first.next_page_token).await.unwrap();
    let third = list("", 2, &second.next_page_token).await.unwrap();
    let paged: Vec<v1::Host> = [first.hosts, second.hosts.clone(), third.hosts].concat();
    assert_eq!(paged, all.hosts);
    assert_eq!(third.next_page_token, "");
    for (filter, names) in [
        ("worst_verdict = FAIL AND NOT state = revoked", vec!["db-1", "old"]),
        ("worst_verdict = pass", vec!["web-1"]),
        ("hostname : -1", vec!["db-1", "web-1"]),
        ("state = revoked", vec!["gone"]),
    ] {
        let found = list(filter, 0, "").await.unwrap();
        let found: BTreeSet<&str> = found.hosts.iter().map(|host| host.hostname.as_str()).collect();
        assert_eq!(found, names.into_iter().collect(), "{filter}");
    }
    assert_eq!(reason_of(&list("", -1, "").await.unwrap_err()), "PAGE_SIZE_INVALID");
    assert_eq!(reason_of(&list("state = active", 2, &second.next_page_token).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    assert_eq!(reason_of(&list("colour = red", 0, "").await.unwrap_err()), "FILTER_INVALID");

    let request = v1::ListFindingsRequest { page_size: 1000, ..Default::default() };
    let findings = fleet.service.list_findings(Request::new(request)).await.unwrap().into_inner().findings;
    let keys: Vec<_> = findings.iter().map(|f| (f.severity, f.control_id.clone(), f.host_id.clone())).collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
    assert!(findings.iter().all(|finding| finding.hostname != "gone"));
    let open = findings.iter().find(|f| f.control_id == "FWL-01" && f.hostname == "db-1").unwrap();
    assert_eq!((open.verdict(), open.reason.as_str()), (v1::Verdict::Fail, "IPv6: allow"));
    assert_eq!(open.log_indexes, [9]);
}

#[tokio::test]
async fn a_host_is_found_by_id_prefix_or_name() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let get = |host: String| {
        let service = fleet.service.clone();
        async move { service.get_host(Request::new(v1::GetHostRequest { host })).await.map(Response::into_inner) }
    };
    let id = fleet.sims[1].id().to_string();
    for text in [id.clone(), id[..12].to_owned(), "db-1".to_owned()] {
        let answer = get(text.clone()).await.unwrap();
        assert_eq!(answer.host.unwrap().id, id, "{text}");
        let subjects: Vec<&str> = answer.facts.iter().map(|fact| fact.subject.as_str()).collect();
        assert!(subjects.is_sorted() && subjects.len() == muster_proto::fact::Subject::ALL.len());
        let fact = answer.facts.iter().find(|fact| fact.subject == "firewall").unwrap();
        assert_eq!(
            (fact.log_index, fact.sequence, fact.control_ids.as_slice()),
            (9, 1, ["FWL-01".to_owned()].as_slice())
        );
        assert_eq!(fact.confirmed_time, Some(at(4 * 86_400).to_wire()));
        assert!(answer.verdicts.is_sorted_by(|a, b| a.control_id < b.control_id));
    }
    // The fifth was revoked, and no other has its name.
    assert_eq!(get("gone".to_owned()).await.unwrap().host.unwrap().state(), v1::HostState::Revoked);
    for text in ["", "nobody", "abc", "\x1b[31m"] {
        let error = get(text.to_owned()).await.unwrap_err();
        assert_eq!(reason_of(&error), "HOST_NOT_FOUND", "{text:?}");
        assert!(!error.message().contains('\x1b'));
    }
}

#[tokio::test]
async fn a_control_tells_its_definition() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let get = |id: &str| {
        let request = v1::GetControlRequest { control_id: id.to_owned() };
        let service = fleet.service.clone();
        async move { service.get_control(Request::new(request)).await.map(Response::into_inner) }
    };
    let control = get("ENC-01").await.unwrap();
    assert_eq!(control.max_age_seconds["laptop"], 7 * 86_400);
    assert!(control.parameters_json.contains("/boot/efi") && control.condition.contains("v.encrypted"));
    assert!(control.mappings.iter().any(|m| m.framework == "soc2" && m.requirement == "CC6.1"));
    assert_eq!(reason_of(&get("ENC-99").await.unwrap_err()), "CONTROL_NOT_FOUND");
    let request = v1::ListControlsRequest { filter: "family = firewall".to_owned(), ..Default::default() };
    let listed = fleet.service.list_controls(Request::new(request)).await.unwrap().into_inner().controls;
    let ids: Vec<&str> = listed.iter().map(|control| control.control_id.as_str()).collect();
    assert_eq!(ids, ["FWL-01", "FWL-02", "FWL-03"]);
}

#[tokio::test]
async fn a_watcher_gets_what_holds_then_a_heartbeat_then_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = fleet(dir.path());
    let request = v1::WatchVerdictsRequest { send_initial: true };
    let mut stream = fleet.service.watch_verdicts(Request::new(request)).await.unwrap().into_inner();
    let mut initial = 0;
    loop {
        match stream.next().await.unwrap().unwrap().event.unwrap() {
            Event::Change(change) => {
                assert!(change.initial);
                initial += 1;
            }
            Event::Heartbeat(beat) => {
                assert_eq!(beat.log_size, 10);
                break;
            }
        }
    }
    assert_eq!(initial, 4 * crate::control::Catalogue::built_in().controls().len());
    // The third host is heard of again.
    let now = at(4 * 86_400 + 120);
    *fleet.clock.0.lock().unwrap() = now.seconds();
    let attested = fleet.sims[2].attestation(now, &PROBES);
    fleet.log.0.lock().unwrap().push(attested);
    fleet.follower.catch_up(11).unwrap();
    let Event::Change(change) = stream.next().await.unwrap().unwrap().event.unwrap() else { panic!("no change") };
    let verdict = change.verdict.clone().unwrap();
    assert_eq!((verdict.hostname.as_str(), change.initial), ("old", false));
    assert_eq!((change.previous(), verdict.verdict()), (v1::Verdict::NoData, v1::Verdict::Pass));
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = fleet(dir.path());
    let request = v1::WatchVerdictsRequest { send_initial: false };
    let mut stream = fleet.service.watch_verdicts(Request::new(request)).await.unwrap().into_inner();
    // More changes than are kept for it, before it reads any: nothing else runs on this thread meanwhile.
    let mut size = 10;
    let mut entries = Vec::new();
    for round in 0..600 {
        let now = at(5 * 86_400 + round * 7 * 86_400);
        for sim in &mut fleet.sims[..1] {
            entries.push((now, sim.attestation(now, &PROBES)));
        }
    }
    for (now, bytes) in entries {
        fleet.log.0.lock().unwrap().push(bytes);
        size += 1;
        *fleet.clock.0.lock().unwrap() = now.seconds() + 6 * 86_400;
        fleet.follower.catch_up(size).unwrap();
        *fleet.clock.0.lock().unwrap() = now.seconds();
        fleet.follower.on_tick();
    }
    let mut last = None;
    while let Some(next) = stream.next().await {
        last = Some(next);
    }
    assert_eq!(reason_of(&last.unwrap().unwrap_err()), "WATCH_LAGGED");
}
