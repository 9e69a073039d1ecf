//! An acknowledgement waits until its checkpoint, and all that the checkpoint covers, is on the disk: seen in the collector's calls.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{path::Path, sync::Arc, time::Duration};

use muster_tests::{
    bench::{
        flow::{self, Load},
        syncs,
    },
    harness::{check, collector::Collector, free_address, left_out, random::Random, until},
    load::Admin,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_checkpoint_covers_is_synced_before_it_is_put_into_place() {
    if let Err(why) = syncs::can_trace() {
        left_out("the collector's calls are not traced", why);
        return;
    }
    let mut collector = Collector::at(free_address());
    let trace = collector.folder().join("trace");
    collector.start_under(&syncs::strace(&trace));
    let flow = flow_for(&collector, Duration::from_secs(3)).await;
    collector.stop(Duration::from_secs(20));
    let seen = read(&collector, &trace).await;
    eprintln!("{} reports acknowledged under {seen:?}", flow.reports);
    assert!(flow.reports > 0 && seen.checkpoints > 2, "{seen:?}");
    syncs::check(&seen).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_waits_for_a_disk_that_is_slow_to_sync() {
    if let Err(why) = syncs::can_trace() {
        left_out("the collector's syncs are not held up", why);
        return;
    }
    /// Longer than the time between checkpoints, so that nothing else can take as long.
    const DELAY: Duration = Duration::from_millis(300);
    let mut collector = Collector::at(free_address());
    collector.settings.push(("MUSTER_CHECKPOINT_INTERVAL_MS", "10".to_owned()));
    let trace = collector.folder().join("trace");
    collector.start_under(&syncs::strace_delaying(&trace, DELAY));
    let flow = flow_for(&collector, Duration::from_secs(6)).await;
    collector.stop(Duration::from_secs(20));
    let seen = read(&collector, &trace).await;
    let fastest = flow.latencies.first().expect("something was acknowledged");
    eprintln!("{} reports acknowledged, the fastest after {fastest:.0?}, by {} syncs", flow.reports, seen.syncs.len());
    // What the checkpoint covers is synced first, then the checkpoint itself, then its name.
    assert!(*fastest >= 3 * DELAY, "acknowledged after {fastest:?}: before the syncs had ended");
    syncs::check(&seen).unwrap();
}

/// Lets four agents stream for `span`.
async fn flow_for(collector: &Collector, span: Duration) -> flow::Flow {
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.unwrap();
    let token = admin.token(4).await.unwrap().secret;
    let identities: Vec<_> = flow::enroll(&target, &token, 4).await.unwrap().into_iter().map(Arc::new).collect();
    let load = Load::Closed { window: 16 };
    let mut running = flow::start(&identities, load, &mut Random::printed("syncs")).await.unwrap();
    let (flow, ..) = running.measure(Duration::ZERO, span, || ()).await.unwrap();
    running.end().await.unwrap();
    flow
}

/// Reads the whole trace of a collector that has ended.
async fn read(collector: &Collector, trace: &Path) -> syncs::Seen {
    let text = until("the trace is complete", async || {
        let text = std::fs::read_to_string(trace).map_err(|error| error.to_string())?;
        check(text.contains("+++ exited with"), "it is not".to_owned()).map(|()| text)
    })
    .await;
    let log = collector.data().join("log").canonicalize().unwrap().display().to_string();
    syncs::read(&text, &log).unwrap()
}
