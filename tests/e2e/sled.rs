//! The buffer in front of the log may be lost or damaged at any time: agents send again, and the log is whole.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_tests::{
    evidence::check_chains,
    harness::{collector::Collector, free_address, random::Random, setting},
    load::{
        Admin, Identity,
        steady::{Pace, Steady},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_inbox_costs_a_resend_and_never_evidence() {
    damaged_inboxes("a lost inbox", |inbox, _| fs::remove_dir_all(inbox).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_inbox_costs_a_resend_and_never_evidence() {
    damaged_inboxes("a damaged inbox", |inbox, random| {
        let files = files(inbox);
        assert!(!files.is_empty(), "the inbox has files");
        for _ in 0..=random.below(8) {
            let file = &files[random.index(files.len())];
            let mut bytes = fs::read(file).unwrap();
            match (bytes.len(), random.below(4)) {
                (0, _) => {}
                (len, 0) => bytes.truncate(random.index(len)),
                (len, 1) => {
                    let start = random.index(len);
                    let end = (start + 4096).min(len);
                    bytes[start..end].fill(0);
                }
                (len, _) => bytes[random.index(len)] ^= 1 << random.below(8),
            }
            fs::write(file, bytes).unwrap();
        }
    })
    .await;
}

/// Kills the collector under load, damages its inbox and starts it again, many times; then checks every promise.
async fn damaged_inboxes(purpose: &str, damage: fn(&Path, &mut Random)) {
    let mut random = Random::printed(purpose);
    let mut collector = Collector::at(free_address());
    // Long enough for much to wait in the inbox.
    collector.settings.push(("MUSTER_CHECKPOINT_INTERVAL_MS", "300".to_owned()));
    collector.start();
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.unwrap();
    let token = admin.token(100).await.unwrap().secret;
    let pace = Pace { window: 256, interval: Duration::from_millis(1) };
    let mut agents = Vec::new();
    let mut log_key = String::new();
    for n in 0..4 {
        let identity = Identity::enroll(&target, &token, &format!("host-{n}")).await.unwrap();
        log_key.clone_from(&identity.log_key);
        agents.push((identity.id, Steady::start(identity, pace, random.number())));
    }
    for _ in 0..setting("MUSTER_TEST_DAMAGES", 15) {
        let before: Vec<_> = agents.iter().map(|(_, steady)| steady.through()).collect();
        muster_tests::harness::until("acknowledgements go on", async || {
            let stuck = agents.iter().zip(&before).find(|((_, steady), before)| steady.through() <= **before);
            muster_tests::harness::check(
                stuck.is_none(),
                format!("{:?}", stuck.map(|((_, steady), _)| steady.promises().ends)),
            )
        })
        .await;
        tokio::time::sleep(random.duration(Duration::from_millis(1), Duration::from_millis(400))).await;
        collector.kill();
        damage(&collector.data().join("inbox"), &mut random);
        collector.start();
    }
    let mut promised = Vec::new();
    for (id, steady) in agents {
        promised.push((id, steady.stop().await.expect("an honest agent is treated well")));
    }
    collector.stop(Duration::from_secs(5));
    let log = collector.evidence(&log_key);
    let chains = log.chains().unwrap();
    check_chains(&chains).expect("no report twice, and no hole");
    for (id, promises) in promised {
        let chain: Vec<_> = chains.iter().filter(|((agent, _), _)| *agent == id).collect();
        assert_eq!(chain.len(), 1, "one epoch of {id}");
        promises.check(chain[0].1, &log).unwrap_or_else(|error| panic!("{id}: {error:#}"));
    }
    assert!(log.conflicts().unwrap().is_empty(), "an honest agent is taken for a clone");
    collector.run_ok(&["fsck"]);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
