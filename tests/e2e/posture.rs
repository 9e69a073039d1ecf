//! A real agent on a real kernel: what changes on its host is seen at the collector.
//!
//! Root only; elsewhere each test says that it was left out, and why.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use muster_proto::v1::{self, Verdict};
use muster_tests::harness::{
    PATIENCE, agent::Agent, check, collector::Collector, free_address, left_out, netns::Namespace, scene::Scene, until,
    within,
};

/// A rule set under which the host is closed.
const CLOSED: &str = "table inet filter { chain input { type filter hook input priority 0; policy drop; \
                      iif lo accept; ct state established,related accept; }; }";

/// How long a change may take from the host to a verdict: the interval of `settings`, and what the way costs.
const SEEN_WITHIN: Duration = Duration::from_secs(10 + 2);

/// Settings by which the agent looks and reports as often as it may, and watches `FOLDER`.
fn settings(folder: &str) -> String {
    format!(
        "attestation_interval = \"10s\"\njitter = 0.0\n[intervals]\nfirewall = \"10s\"\nfile_integrity = \"10s\"\n\
         [probes]\nwatched_paths = [\"{folder}\"]\n"
    )
}

/// A scene on an address that a namespace of its own reaches, with a real agent in that namespace.
struct Host {
    scene: Scene,
    agent: Agent,
    id: String,
    hostname: String,
    watched: std::path::PathBuf,
    namespace: Namespace,
}

impl Host {
    async fn set(purpose: &str) -> Option<Self> {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(why) => {
                left_out(purpose, why);
                return None;
            }
        };
        namespace.run(&["nft", CLOSED]);
        let address = SocketAddr::new(namespace.outside.into(), free_address().port());
        let scene = Scene::set_with(purpose, Collector::at(address)).await;
        let watched = scene.collector.folder().join("watched");
        fs::create_dir(&watched).unwrap();
        fs::write(watched.join("sudoers"), "root ALL=(ALL) ALL\n").unwrap();
        let mut agent = Agent::of(&scene.collector, &settings(&watched.display().to_string()));
        agent.inside(&namespace);
        agent.start();
        let (id, hostname) = until("the host is judged", async || {
            let hosts = scene.admin.fleet().list_hosts(v1::ListHostsRequest::default()).await;
            let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
            let host = hosts.into_iter().find(|host| host.hostname != "honest" && host.sequence > 1);
            host.map(|host| (host.id, host.hostname)).ok_or_else(|| agent.process().output())
        })
        .await;
        Some(Self { scene, agent, id, hostname, watched, namespace })
    }

    /// Waits until `control` says `verdict` of the host, however long the first look at everything takes.
    async fn begins_with(&self, control: &str, verdict: Verdict) {
        self.says(control, verdict, PATIENCE).await;
    }

    /// Waits until `control` says `verdict` of the host, which has just changed.
    async fn becomes(&self, control: &str, verdict: Verdict) {
        self.says(control, verdict, SEEN_WITHIN).await;
    }

    async fn says(&self, control: &str, verdict: Verdict, limit: Duration) {
        within(limit, &format!("{control} says {verdict:?}"), async || {
            let host = self.scene.admin.host(&self.id).await.map_err(|status| status.to_string())?;
            let held = host.verdicts.iter().find(|held| held.control_id == control);
            check(held.is_some_and(|held| held.verdict() == verdict), format!("{held:?}"))
        })
        .await;
    }

    async fn end(mut self) {
        self.agent.stop(Duration::from_secs(10));
        self.scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_firewall_is_seen_and_a_closed_one_too() {
    let Some(host) = Host::set("a flushed firewall").await else { return };
    host.begins_with("FWL-01", Verdict::Pass).await;
    let watch = Watch::start(&host, "FWL-01").await;
    host.namespace.run(&["nft", "flush", "ruleset"]);
    host.becomes("FWL-01", Verdict::Fail).await;
    watch.shows("FWL-01", "pass -> fail").await;
    host.namespace.run(&["nft", CLOSED]);
    host.becomes("FWL-01", Verdict::Pass).await;
    watch.shows("FWL-01", "fail -> pass").await;
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_seen() {
    let Some(host) = Host::set("a changed file").await else { return };
    host.begins_with("FIM-02", Verdict::Pass).await;
    let watch = Watch::start(&host, "FIM-02").await;
    fs::write(host.watched.join("sudoers"), "eve ALL=(ALL) NOPASSWD: ALL\n").unwrap();
    host.becomes("FIM-02", Verdict::Fail).await;
    watch.shows("FIM-02", "pass -> fail").await;
    let reason = host.scene.admin.host(&host.id).await.unwrap().verdicts;
    let reason = &reason.iter().find(|held| held.control_id == "FIM-02").unwrap().reason;
    assert!(reason.contains("sudoers"), "the reason does not name the file: {reason}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_change_passes_until_the_file_changes_again() {
    let Some(host) = Host::set("an acknowledged change").await else { return };
    let (ctl, file) = (host.scene.collector.ctl(), host.watched.join("sudoers"));
    let path = file.display().to_string();
    host.begins_with("FIM-02", Verdict::Pass).await;
    fs::write(&file, "eve ALL=(ALL) ALL\n").unwrap();
    host.becomes("FIM-02", Verdict::Fail).await;
    let open = ["files", "changes", "--open", "--host", &host.id];
    let found = ctl.json(&open);
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!((found[0]["change"]["path"].as_str(), found[0]["state"].as_str()), (Some(path.as_str()), Some("open")));
    let word = ["--path", &path, "--reason", "planned", "--reference", "CHG-7"];
    let told = ctl.json(&[["files", "acknowledge", "--host", &host.id].as_slice(), &word].concat());
    assert_eq!(told["changes"][0]["outcome"], "acknowledged", "{told}");
    // It is judged when the answer is there.
    assert_eq!(host.scene.admin.verdict(&host.id, "FIM-02").await.unwrap(), Verdict::Pass);
    assert_eq!(ctl.json(&open), serde_json::json!([]));
    // Nothing is open there any more, and the exit code says so.
    assert!(!ctl.run(&[["files", "acknowledge", "--host", &host.id].as_slice(), &word].concat()).status.success());

    let snapshot = host.scene.collector.folder().join("snapshot.zip").display().to_string();
    ctl.text(&["snapshot", "create", "--out", &snapshot]);
    let verified = ctl.text(&["verify", &snapshot]);
    assert!(verified.contains("operators acknowledged it"), "{verified}");

    fs::write(&file, "mallory ALL=(ALL) ALL\n").unwrap();
    host.becomes("FIM-02", Verdict::Fail).await;
    let again = ctl.json(&open);
    let content = again[0]["change"]["after"]["sha256"].as_str().unwrap().to_owned();
    let holders = ctl.json(&["files", "who-has", "--path", &path, "--sha256", &content]);
    assert_eq!((holders["holders"][0]["current"].as_bool(), holders["unknown_hosts"].as_u64()), (Some(true), Some(0)));
    let timeline = ctl.text(&["files", "timeline", &host.id, &path]);
    for line in ["(first scan)", "changed again", "log index", ": planned (CHG-7)", "open"] {
        assert!(timeline.contains(line), "no {line:?} in:\n{timeline}");
    }
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_asked_for_is_made_within_two_seconds() {
    let Some(host) = Host::set("a look asked for").await else { return };
    host.begins_with("FWL-01", Verdict::Pass).await;
    // Once to warm the caches of a debug build, then for the figure.
    for _ in 0..2 {
        host.namespace.run(&["nft", "flush", "ruleset"]);
        let start = Instant::now();
        let output = host.scene.collector.ctl().text(&["look", &host.id]);
        let elapsed = start.elapsed();
        let verdict = host.scene.admin.verdict(&host.id, "FWL-01").await.unwrap();
        assert_eq!(verdict, Verdict::Fail, "the look is answered before its facts are judged:\n{output}");
        eprintln!("musterctl look took {elapsed:.0?}");
        assert!(elapsed < Duration::from_secs(2), "the look took {elapsed:?}");
        host.namespace.run(&["nft", CLOSED]);
        host.scene.collector.ctl().text(&["look", &host.id]);
        assert_eq!(host.scene.admin.verdict(&host.id, "FWL-01").await.unwrap(), Verdict::Pass);
    }
    host.end().await;
}

/// `musterctl watch`, running.
struct Watch {
    child: std::process::Child,
    hostname: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    /// Starts it, and waits until it has shown that `control` of the host passes: from then on it misses no change.
    async fn start(host: &Host, control: &str) -> Self {
        let mut command = host.scene.collector.ctl().command(&["watch", "--initial"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("musterctl starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, sink) = (child.stdout.take().expect("a pipe"), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let watch = Self { child, hostname: host.hostname.clone(), lines };
        watch.shows(control, "pass").await;
        watch
    }

    /// Waits for the line in which `control` of the host has `change`, such as `pass -> fail`.
    async fn shows(&self, control: &str, change: &str) {
        let expected = format!("  {control}  {}  {change}  ", self.hostname);
        within(Duration::from_secs(2), &format!("a line with {expected:?}"), async || {
            let lines = self.lines.lock().unwrap();
            check(lines.iter().any(|line| line.contains(&expected)), lines.join("\n"))
        })
        .await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It is killed because it never ends; nothing is left to do when it has.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::io::stderr().flush();
    }
}
