//! An acknowledgement waits until its checkpoint, and all that the checkpoint covers, is on the disk: seen in the collector's calls.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{sync::Arc, time::Duration};

use muster_tests::{
    bench::{
        flow::{self, Load},
        syncs,
    },
    harness::{check, collector::Collector, free_address, random::Random, until},
    load::Admin,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_checkpoint_covers_is_synced_before_it_is_put_into_place() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        muster_tests::harness::left_out("the collector's calls are not traced", "strace is not installed");
        return;
    }
    let mut collector = Collector::at(free_address());
    let trace = collector.folder().join("trace");
    collector.start_under(&syncs::strace(&trace));
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.unwrap();
    let token = admin.token(4).await.unwrap().secret;
    let identities: Vec<_> = flow::enroll(&target, &token, 4).await.unwrap().into_iter().map(Arc::new).collect();
    let load = Load::Closed { window: 16 };
    let mut running = flow::start(&identities, load, &mut Random::printed("syncs")).await.unwrap();
    let (flow, ..) = running.measure(Duration::ZERO, Duration::from_secs(3), || ()).await.unwrap();
    running.end().await.unwrap();
    collector.stop(Duration::from_secs(20));
    let text = until("the trace is complete", async || {
        let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
        check(text.contains("+++ exited with"), "it is not".to_owned()).map(|()| text)
    })
    .await;
    let log = collector.data().join("log").canonicalize().unwrap().display().to_string();
    let seen = syncs::read(&text, &log).unwrap();
    eprintln!("{} reports acknowledged under {seen:?}", flow.reports);
    assert!(flow.reports > 0 && seen.checkpoints > 2, "{seen:?}");
    syncs::check(&seen).unwrap();
}
