//! A provider's statement, from the operator's file to the auditor's desk: a host whose storage no agent can see.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{fs, time::Duration};

use muster_proto::fact::{Cause, Fact, Reading, sample};
use muster_tests::{
    harness::{check, ctl::Ctl, now, scene::Scene, until},
    load::{Chain, Session},
};

const DAY: Duration = Duration::from_secs(86_400);

/// Returns a host's disks, each below a disk that the host cannot see through.
fn hidden() -> Fact {
    let mut disks = sample::disk_encryption();
    let encrypted = || Reading::unknown(Cause::Hidden, "a virtual disk");
    disks.volumes.iter_mut().for_each(|volume| volume.encrypted = encrypted());
    disks.swap_areas.iter_mut().for_each(|area| area.encrypted = encrypted());
    Fact::DiskEncryption(Reading::Known(disks))
}

/// Returns verdict and reason of ENC-01.
fn verdict(ctl: &Ctl, host: &str) -> (String, String) {
    let host = ctl.json(&["hosts", "show", host]);
    let verdicts = host["verdicts"].as_array().unwrap();
    let told = verdicts.iter().find(|told| told["control_id"] == "ENC-01").unwrap();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("verdict"), text("reason"))
}

async fn becomes(ctl: &Ctl, host: &str, expected: &str) -> String {
    until(&format!("ENC-01 is {expected}"), async || {
        let (verdict, reason) = verdict(ctl, host);
        check(verdict == expected, format!("it is {verdict}: {reason}")).map(|()| reason)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_disk_passes_by_a_statement_alone_which_the_auditor_is_told_and_which_can_be_taken_back() {
    let mut scene = Scene::set("a statement").await;
    let identity = scene.enroll("guest").await;
    let (id, ctl) = (identity.id.to_string(), scene.collector.ctl());
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let bodies = [chain.epoch_started(), chain.facts(&[hidden()], true, now())];
    for body in bodies {
        session.send(chain.seal(&identity.keys.evidence, body, now())).await;
    }
    session.durable_through(2).await.unwrap();
    let reason = becomes(&ctl, &id, "unknown").await;
    assert!(reason.contains("hidden (a virtual disk)"), "{reason}");

    // The operator has the provider's word, and keeps the document.
    let document = scene.collector.folder().join("contract.pdf");
    fs::write(&document, "All storage is encrypted at rest.").unwrap();
    let (document, from, until) = (
        document.display().to_string(),
        now().minus(DAY).to_second().to_string(),
        now().plus(DAY).to_second().to_string(),
    );
    let stated = ["--provider", "Example Cloud", "--reference", "contract 7", "--document", &document, "--host", &id];
    let statement =
        ctl.text(&[&["controls", "statement"], &stated[..], &["--from", &from, "--until", &until]].concat());
    let file = scene.collector.data().join("controls.toml");
    fs::write(&file, &statement).unwrap();
    ctl.text(&["controls", "test", &file.display().to_string()]);
    scene.collector.stop(Duration::from_secs(10));
    scene.collector.settings.push(("MUSTER_CATALOGUE", "controls.toml".to_owned()));
    scene.collector.start();
    let reason = becomes(&ctl, &id, "pass").await;
    assert!(reason.starts_with("by the statement of Example Cloud (contract 7, sha256:"), "{reason}");
    assert!(reason.contains("not by observation: disk_encryption."), "{reason}");
    assert!(ctl.text(&["hosts", "show", &id]).contains("by the statement of Example Cloud"));
    assert!(ctl.text(&["controls", "show", "ENC-01"]).contains("stated      by Example Cloud (contract 7)"));

    // Offline the same follows from the file alone, and it is said that it rests on somebody's word.
    let snapshot = scene.collector.folder().join("snapshot.zip").display().to_string();
    ctl.text(&["snapshot", "create", "--out", &snapshot]);
    let said = ctl.text(&["verify", &snapshot, "--log-key", &scene.log_key]);
    assert!(said.contains("rests on a statement of Example Cloud and not on an observation"), "{said}");

    fs::write(&file, "").unwrap();
    scene.collector.stop(Duration::from_secs(10));
    scene.collector.start();
    becomes(&ctl, &id, "unknown").await;
    scene.end().await;
}
