//! Questions about the files of a fleet made in memory.

use std::{path::Path, sync::Mutex};

use muster_proto::{
    fact::{ChangeKind, Fact, FileChange, Reading, Text},
    v1::fleet_service_server::FleetService as _,
};
use tonic::{Request, Response};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    control::sample,
    judge::tests::{
        MemoryLog, Sim, StillClock, act, at,
        files::{acknowledgement, change, integrity},
        open,
    },
    query::{FleetService, Liveness},
};

struct Nobody;

impl Liveness for Nobody {
    fn connected(&self, _agent: AgentId) -> bool {
        false
    }

    fn last_seen(&self, _agent: AgentId) -> Option<Timestamp> {
        None
    }
}

struct Fleet {
    service: FleetService,
    ids: Vec<AgentId>,
}

/// Returns a fleet of four hosts named after their place. Host 0 and 1 have the same foreign content of `/etc/passwd`, which is
/// acknowledged on host 0; host 1 had another one before and restored `/usr/bin/su`; host 2 never reported a change; host 3
/// watches no `/etc`.
fn fleet(dir: &Path) -> Fleet {
    let mut sims: Vec<Sim> = (0..4).map(|_| Sim::new()).collect();
    sims.sort_by_key(Sim::id);
    let mut entries: Vec<Vec<u8>> = sims.iter().map(|sim| sim.enrollment(at(0))).collect();
    let system = |name: usize| {
        let mut fact = sample::healthy().remove(0);
        if let Fact::System(Reading::Known(system)) = &mut fact {
            system.hostname = Reading::Known(format!("host-{name}").as_str().into());
        }
        fact
    };
    let told = change("/etc/passwd", 0xaa, 5);
    let (su, other) = (change("/usr/bin/su", 0xbb, 5), change("/etc/passwd", 0xcc, 5));
    entries.push(sims[0].facts(at(10), &[system(0), integrity(vec![told.clone()], |_| {})], true));
    entries.push(sims[1].facts(at(20), &[system(1), integrity(vec![other, su], |_| {})], true));
    entries.push(sims[2].facts(at(30), &[system(2), integrity(vec![], |_| {})], true));
    let elsewhere = integrity(vec![], |files| files.paths.retain(|path| path.path.as_str() != "/etc"));
    entries.push(sims[3].facts(at(30), &[system(3), elsewhere], true));
    entries.push(sims[1].facts(at(40), &[integrity(vec![change("/etc/passwd", 0xaa, 35)], |_| {})], false));
    entries.push(act(at(50), acknowledgement(sims[0].id(), &[told])));
    Fleet { service: service(dir, entries), ids: sims.iter().map(Sim::id).collect() }
}

fn service(dir: &Path, entries: Vec<Vec<u8>>) -> FleetService {
    let size = entries.len() as u64;
    let (log, clock) = (Arc::new(MemoryLog(Mutex::new(entries))), StillClock::default());
    *clock.0.lock().unwrap() = at(60).seconds();
    let (views, mut follower) = open(&dir.join("v"), &log, &clock);
    follower.catch_up(size).unwrap();
    FleetService::new("c", views, follower.judge(), Arc::new(Nobody), Arc::new(clock))
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn list(fleet: &Fleet, request: v1::ListFileChangesRequest) -> Result<v1::ListFileChangesResponse, Status> {
    fleet.service.list_file_changes(Request::new(request)).await.map(Response::into_inner)
}

/// Returns host and path of each change that is asked for.
async fn found(fleet: &Fleet, request: v1::ListFileChangesRequest) -> Vec<(String, String)> {
    let named = |change: v1::HostFileChange| (change.hostname, change.change.unwrap().path);
    list(fleet, request).await.unwrap().changes.into_iter().map(named).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(host, path)| ((*host).to_owned(), (*path).to_owned())).collect()
}

#[tokio::test]
async fn changes_are_found_by_host_path_state_content_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let (passwd, su) = ("/etc/passwd", "/usr/bin/su");
    let all = [("host-0", passwd), ("host-1", passwd), ("host-1", su), ("host-1", passwd)];
    let filtered = |filter: &str| v1::ListFileChangesRequest { filter: filter.to_owned(), ..Default::default() };
    assert_eq!(found(&fleet, filtered("")).await, pairs(&all));
    for (filter, expected) in [
        ("state = open", vec![all[3]]),
        ("state = acknowledged", vec![all[0]]),
        ("state = ended", vec![all[1], all[2]]),
        ("state = open OR state = acknowledged AND path : passwd", vec![all[0], all[3]]),
        ("hostname = host-1 AND path = /usr/bin/su", vec![all[2]]),
        ("severity = high AND set = system AND kind = content", all.to_vec()),
        ("kind = deleted", vec![]),
        (&format!("after_sha256 = {}", "aa".repeat(32)), vec![all[0], all[3]]),
        (&format!("before_sha256 = {}", "66".repeat(32)), all.to_vec()),
    ] {
        assert_eq!(found(&fleet, filtered(filter)).await, pairs(&expected), "{filter}");
    }
    let host = v1::ListFileChangesRequest { host: "host-1".to_owned(), path: su.to_owned(), ..Default::default() };
    assert_eq!(found(&fleet, host).await, pairs(&[all[2]]));
    let span = v1::ListFileChangesRequest {
        start_time: Some(at(20).to_wire()),
        end_time: Some(at(40).to_wire()),
        ..Default::default()
    };
    assert_eq!(found(&fleet, span).await, pairs(&[all[1], all[2]]));
    let never = prost_types::Timestamp { seconds: -1, nanos: 0 };
    for (request, reason) in [
        (filtered("colour = red"), "FILTER_INVALID"),
        (filtered("state = lost"), "FILTER_INVALID"),
        (v1::ListFileChangesRequest { host: "nobody".to_owned(), ..Default::default() }, "HOST_NOT_FOUND"),
        (v1::ListFileChangesRequest { path: "etc".to_owned(), ..Default::default() }, "PATH_INVALID"),
        (v1::ListFileChangesRequest { start_time: Some(never), ..Default::default() }, "REQUEST_INVALID"),
        (v1::ListFileChangesRequest { end_time: Some(never), ..Default::default() }, "REQUEST_INVALID"),
        (v1::ListFileChangesRequest { page_size: -1, ..Default::default() }, "PAGE_SIZE_INVALID"),
    ] {
        assert_eq!(reason_of(&list(&fleet, request.clone()).await.unwrap_err()), reason, "{request:?}");
    }
}

#[test]
fn each_filter_that_the_client_shows_is_taken_by_its_list() {
    use crate::{
        ctl::example,
        query::{CONTROL_FIELDS, FINDING_FIELDS, HOST_FIELDS},
    };
    for (help, fields) in [
        (example::HOSTS, HOST_FIELDS),
        (example::CONTROLS, CONTROL_FIELDS),
        (example::FINDINGS, FINDING_FIELDS),
        (example::CHANGES, CHANGE_FIELDS),
        (example::EXPLAINED, GROUP_FIELDS),
    ] {
        let (_, filter) = help.split_once("such as: ").unwrap();
        assert!(parse_filter(filter, fields).is_ok(), "{filter}");
    }
}

#[test]
fn a_path_that_no_fact_can_have_is_refused_with_what_to_write() {
    for path in ["/", "/etc", "/etc/passwd", "/etc/..a", "/etc/.hidden", "/a\\x0ab", "/with space"] {
        assert_eq!(checked_path(path).unwrap().as_str(), path);
    }
    for (path, word) in [
        ("", "absolute"),
        ("etc/passwd", "absolute"),
        ("/etc/", "at the end"),
        ("//etc", "in a row"),
        ("/etc//passwd", "in a row"),
        ("/etc/./passwd", "`.`"),
        ("/etc/..", "`..`"),
        ("/..", "`..`"),
        ("/a\nb", "xNN"),
    ] {
        let refused = checked_path(path).unwrap_err();
        assert_eq!(reason_of(&refused), "PATH_INVALID", "{path:?}");
        assert!(refused.message().contains(word), "{path:?}: {}", refused.message());
    }
}

#[tokio::test]
async fn a_change_tells_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let changes = list(&fleet, v1::ListFileChangesRequest::default()).await.unwrap().changes;
    let word = changes[0].acknowledgement.clone().unwrap();
    assert_eq!(
        (word.actor.as_str(), word.reason.as_str(), word.reference.as_str()),
        ("spiffe://c/admin/a", "planned", "CHG-7")
    );
    assert_eq!((word.log_index, word.time), (9, Some(at(50).to_wire())));
    let ends: Vec<_> = changes.iter().map(v1::HostFileChange::end).collect();
    use v1::FileChangeEnd::{ChangedAgain, Restored, Unspecified};
    assert_eq!(ends, [Unspecified, ChangedAgain, Restored, Unspecified]);
    assert_eq!((changes[1].end_log_index, changes[1].end_time), (8, Some(at(40).to_wire())));
    assert_eq!(changes[0].after_digest, change("/etc/passwd", 0xaa, 5).after_digest().to_string());
    let numbers: Vec<_> = changes.iter().map(|change| (change.number, change.log_index, change.listed)).collect();
    assert_eq!(numbers, [(1, 4, true), (1, 5, false), (2, 5, false), (3, 8, true)]);
}

#[tokio::test]
async fn pages_lose_nothing_and_a_token_belongs_to_its_question() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let all = list(&fleet, v1::ListFileChangesRequest::default()).await.unwrap().changes;
    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListFileChangesRequest { page_size: 1, page_token: page_token.clone(), ..Default::default() };
        let answer = list(&fleet, request).await.unwrap();
        paged.extend(answer.changes);
        if answer.next_page_token.is_empty() {
            break;
        }
        page_token = answer.next_page_token;
    }
    assert_eq!(paged, all);
    for other in [
        v1::ListFileChangesRequest { host: "host-1".to_owned(), ..Default::default() },
        v1::ListFileChangesRequest { filter: "state = open".to_owned(), ..Default::default() },
        v1::ListFileChangesRequest { start_time: Some(at(1).to_wire()), ..Default::default() },
    ] {
        let request = v1::ListFileChangesRequest { page_token: page_token.clone(), ..other };
        assert_eq!(reason_of(&list(&fleet, request).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    }
}

#[tokio::test]
async fn who_has_a_content_is_told_with_those_of_whom_nobody_knows() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let holders = |path: &str, sha256: &str| {
        let request =
            v1::ListFileHoldersRequest { path: path.to_owned(), sha256: sha256.to_owned(), ..Default::default() };
        let service = fleet.service.clone();
        async move { service.list_file_holders(Request::new(request)).await.map(Response::into_inner) }
    };
    let told = |answer: &v1::ListFileHoldersResponse| -> Vec<(String, bool, bool)> {
        answer.holders.iter().map(|it| (it.hostname.clone(), it.found, it.current)).collect()
    };
    let row = |host: &str, found, current| (host.to_owned(), found, current);
    let foreign = holders("/etc/passwd", &"aa".repeat(32)).await.unwrap();
    assert_eq!(told(&foreign), [row("host-0", true, true), row("host-1", true, true)]);
    // Hosts 0 to 2 watch it, and of host 2 nothing is known.
    assert_eq!((foreign.watching_hosts, foreign.unknown_hosts, foreign.forgotten_hosts), (3, 1, 0));
    let former = holders("/etc/passwd", &"cc".repeat(32)).await.unwrap();
    assert_eq!(told(&former), [row("host-1", true, false)]);
    // What was restored is the baseline's content again.
    let restored = holders("/usr/bin/su", "").await.unwrap();
    assert_eq!(told(&restored), [row("host-1", false, true), row("host-1", true, false)]);
    for (path, sha256) in [("etc", ""), ("/etc/passwd", "aa"), ("/etc/\u{1b}", "")] {
        assert_eq!(reason_of(&holders(path, sha256).await.unwrap_err()), "PATH_INVALID", "{path:?}");
    }
}

#[tokio::test]
async fn nobody_knows_the_content_of_a_host_whose_last_change_tells_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let (mut unread, gone) = (change("/etc/passwd", 0xaa, 5), change("/etc/gone", 0xaa, 5));
    unread.after.as_mut().unwrap().sha256 = Text::default();
    let gone = FileChange { kind: ChangeKind::Deleted, after: None, ..gone };
    let files = integrity(vec![gone, unread], |_| {});
    let entries = vec![sim.enrollment(at(0)), sim.facts(at(10), &[sample::healthy().remove(0), files], true)];
    let service = service(dir.path(), entries);
    for (path, unknown) in [("/etc/passwd", 1), ("/etc/gone", 0), ("/etc/same", 1)] {
        let request = v1::ListFileHoldersRequest { path: path.to_owned(), ..Default::default() };
        let answer = service.list_file_holders(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((answer.watching_hosts, answer.unknown_hosts), (1, unknown), "{path}");
    }
}

#[tokio::test]
async fn explained_groups_and_baselines_are_told_for_each_host() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let explained = |filter: &str, host: &str| {
        let request =
            v1::ListExplainedChangesRequest { filter: filter.to_owned(), host: host.to_owned(), ..Default::default() };
        let service = fleet.service.clone();
        async move { service.list_explained_changes(Request::new(request)).await.map(Response::into_inner) }
    };
    let groups = explained("", "").await.unwrap().groups;
    assert_eq!(groups.len(), 4);
    let of_host = explained("package = openssl AND source = dpkg", "host-2").await.unwrap().groups;
    assert_eq!(of_host.len(), 1);
    let it = of_host[0].explained.clone().unwrap();
    assert_eq!((it.explanation.unwrap().version.as_str(), it.changes_total), ("3.0.17-1~deb12u3", 3));
    assert!(explained("package = bash", "").await.unwrap().groups.is_empty());
    let request = v1::ListFileBaselinesRequest { host: "host-1".to_owned(), ..Default::default() };
    let baselines = fleet.service.list_file_baselines(Request::new(request)).await.unwrap().into_inner().baselines;
    assert_eq!(baselines.len(), 1);
    assert!(!baselines[0].lost_before && baselines[0].log_index == 5);
}

#[tokio::test]
async fn only_a_change_in_the_state_that_was_seen_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path());
    let key = |host: usize, path: &str, content, found| {
        (fleet.ids[host], path.to_owned(), change(path, content, found).after_digest())
    };
    let asked = vec![
        key(0, "/etc/passwd", 0xaa, 5),
        key(1, "/etc/passwd", 0xaa, 35),
        key(1, "/etc/passwd", 0xcc, 5),
        key(1, "/usr/bin/su", 0xbb, 5),
        key(2, "/etc/passwd", 0xaa, 5),
    ];
    use ChangeState::{Acknowledged, Ended, Open};
    assert_eq!(fleet.service.standings_of_changes(asked).await.unwrap(), [Acknowledged, Open, Ended, Ended, Ended]);
}
