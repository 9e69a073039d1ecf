//! What an acknowledged report costs the collector, beside what its signature alone costs on the same machine in the same run.
//!
//! `cargo run --release -p muster-tests --bin bench-ack -- [--seconds N] [--connections N]`
//!
//! Every acknowledgement names a checkpoint that was signed and synced. That is not taken on trust: a separate short run traces the
//! collector's calls and checks that all a checkpoint covers was synced before it was put into place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use muster_tests::{
    bench::{
        argument, bytes_below, circumstances,
        flow::{self, Flow, Load},
        keep, per, quantile, rounded, syncs, verification_seconds,
    },
    harness::{check, collector::Collector, free_address, now, random::Random, until},
    load::{Admin, Chain, Identity},
};
use serde_json::{Value, json};

/// Microseconds of raw verification that samples are taken for.
const VERIFY_FOR: Duration = Duration::from_millis(700);

/// What is aimed at: ratio to raw verification with 64 and 1,000 connections, and microseconds a report in the open loop.
const AIMS: (f64, f64, f64) = (1.3, 1.5, 100.0);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let seconds = Duration::from_secs(argument("seconds", 20));
    let many = usize::try_from(argument("connections", 1_000))?;
    // The word that acknowledgements wait for the disk is worth nothing untraced; said before minutes are spent.
    syncs::can_trace().map_err(anyhow::Error::msg)?;
    let before = circumstances();
    let mut random = Random::printed("bench-ack");

    let mut collector = Collector::at(free_address());
    for name in ["MUSTER_LIMITS_ENROLLMENTS_PER_SECOND", "MUSTER_LIMITS_ENROLLMENT_CONNECTIONS"] {
        collector.settings.push((name, "100000".to_owned()));
    }
    // What is measured is what the collector can do, not what it lets one agent have.
    for name in ["MUSTER_LIMITS_AGENT_BURST_BYTES", "MUSTER_LIMITS_AGENT_BYTES_PER_SECOND"] {
        collector.settings.push((name, (1_u64 << 40).to_string()));
    }
    collector.start();
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await?;
    let token = admin.token(100_000).await?.secret;
    let start = Instant::now();
    let identities: Vec<_> = flow::enroll(&target, &token, many.max(64)).await?.into_iter().map(Arc::new).collect();
    let enrolled = start.elapsed();
    println!("enrolled {} agents in {enrolled:.1?}", identities.len());

    let mut cases = Vec::new();
    for (name, connections, load) in [
        ("64 connections, closed loop".to_owned(), 64, Load::Closed { window: 256 }),
        (format!("{many} connections, closed loop"), many, Load::Closed { window: 64 }),
        // One report a connection in as many milliseconds as there are connections.
        (
            format!("{many} connections, 1000 reports/s"),
            many,
            Load::Open { interval: Duration::from_millis(many as u64) },
        ),
    ] {
        cases.push(case(&mut collector, &name, &identities[..connections], load, seconds, &mut random).await?);
    }
    collector.stop(Duration::from_secs(10));
    collector.run_ok(&["fsck"]);

    let (traced, verdict) = match traced(64, &mut random).await {
        Ok((figures, seen)) => (figures, syncs::check(&seen)),
        Err(error) => (Value::Null, Err(error.context("the traced run"))),
    };
    let said = verdict.as_ref().map_or_else(|error| format!("{error:#}"), |()| "every checkpoint covered".to_owned());
    println!("traced: {said}\n{}", serde_json::to_string_pretty(&rounded(&traced))?);
    let results = json!({
        "benchmark": "ack", "machine": before, "enrolled": identities.len(), "enrol_seconds": enrolled.as_secs_f64(),
        "checkpoint_interval_ms": millis(checkpoint_interval(&collector)?),
        "aims": { "ratio_64": AIMS.0, "ratio_1000": AIMS.1, "open_loop_cpu_micros": AIMS.2 },
        "cases": cases, "traced": traced, "traced_verdict": said,
    });
    println!("kept in {}", keep("ack", &results)?.display());
    // Figures decide nothing; a promise that is not kept does.
    verdict
}

/// Returns the time between checkpoints, as the collector's settings in force say.
fn checkpoint_interval(collector: &Collector) -> anyhow::Result<Duration> {
    let shown: Value = serde_json::from_str(&collector.run_ok(&["check-config", "-o", "json"]))?;
    let interval = shown["settings"]["checkpoint_interval_ms"].as_u64().context("the settings name the interval")?;
    Ok(Duration::from_millis(interval))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What the collector has used, at one moment.
struct Used {
    at: Instant,
    cpu: f64,
    log_bytes: u64,
    data_bytes: u64,
    size: u64,
    memory: (u64, u64),
    written: u64,
}

async fn case(
    collector: &mut Collector,
    name: &str,
    identities: &[Arc<Identity>],
    load: Load,
    span: Duration,
    random: &mut Random,
) -> anyhow::Result<Value> {
    let samples = samples(&identities[0], random);
    let verify_before = verification_seconds(&identities[0].public_key(), &samples, VERIFY_FOR);
    let mut running = flow::start(identities, load, random).await?;
    let (flow, first, last) = running.measure(Duration::from_secs(4), span, || used(collector)).await?;
    running.end().await?;
    let verify_after = verification_seconds(&identities[0].public_key(), &samples, VERIFY_FOR);
    let verify = f64::midpoint(verify_before, verify_after);
    let interval = checkpoint_interval(collector)?;
    let result = figures(name, identities.len(), &flow, &first, &last, verify, interval)?;
    println!("{name}\n{}", serde_json::to_string_pretty(&rounded(&result))?);
    Ok(result)
}

fn figures(
    name: &str,
    connections: usize,
    flow: &Flow,
    first: &Used,
    last: &Used,
    verify: f64,
    interval: Duration,
) -> anyhow::Result<Value> {
    anyhow::ensure!(flow.reports > 0, "nothing was acknowledged in {name}");
    let span = (last.at - first.at).as_secs_f64();
    let cpu = per(last.cpu - first.cpu, flow.reports);
    let ack = |share| millis(quantile(&flow.latencies, share));
    let over = |share| ack(share) - millis(interval);
    let entries = last.size - first.size;
    Ok(json!({
        "case": name,
        "connections": connections,
        "seconds": span,
        "reports": flow.reports,
        "reports_per_second": per(1.0, 1) * flow.reports as f64 / span,
        "sealed_bytes_per_report": per(flow.bytes as f64, flow.reports),
        "collector_cpu_micros_per_report": cpu * 1e6,
        "collector_cpu_share_of_one_processor": (last.cpu - first.cpu) / span,
        "raw_verification_micros": verify * 1e6,
        "ratio": cpu / verify,
        "checkpoint_interval_ms": millis(interval),
        "ack_p50_ms": ack(0.5),
        "ack_p99_ms": ack(0.99),
        "ack_max_ms": ack(1.0),
        "ack_p50_over_interval_ms": over(0.5),
        "ack_p99_over_interval_ms": over(0.99),
        "log_entries": entries,
        "log_bytes_per_report": per((last.log_bytes - first.log_bytes) as f64, entries),
        "data_bytes_per_report": per(last.data_bytes.saturating_sub(first.data_bytes) as f64, entries),
        "written_bytes_per_report": per((last.written - first.written) as f64, entries),
        "rss_mib": last.memory.0 as f64 / 1048576.0,
        "rss_peak_mib": last.memory.1 as f64 / 1048576.0,
    }))
}

fn used(collector: &mut Collector) -> Used {
    let data = collector.data();
    let checkpoint = std::fs::read_to_string(data.join("log/checkpoint")).unwrap_or_default();
    let process = collector.process();
    let io = std::fs::read_to_string(format!("/proc/{}/io", process.id())).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).and_then(|text| text.parse().ok());
    Used {
        at: Instant::now(),
        cpu: process.cpu_seconds(),
        memory: process.memory_bytes(),
        size: checkpoint.lines().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0),
        log_bytes: bytes_below(&data.join("log")),
        data_bytes: bytes_below(&data),
        written: written.unwrap_or(0),
    }
}

fn samples(identity: &Identity, random: &mut Random) -> Vec<muster_proto::v1::SealedReport> {
    let mut chain = Chain::begin(identity.id, random, now());
    let mut next = || {
        let body = chain.usual(now());
        chain.seal(&identity.keys.evidence, body, now())
    };
    (0..256).map(|_| next()).collect()
}

/// Runs a collector under strace for a short time, with `count` connections, and reads what it did.
async fn traced(count: usize, random: &mut Random) -> anyhow::Result<(Value, syncs::Seen)> {
    let mut collector = Collector::at(free_address());
    let trace = collector.folder().join("trace");
    collector.start_under(&syncs::strace(&trace));
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await?;
    let token = admin.token(u32::try_from(count)?).await?.secret;
    let identities: Vec<_> = flow::enroll(&target, &token, count).await?.into_iter().map(Arc::new).collect();
    let mut running = flow::start(&identities, Load::Closed { window: 64 }, random).await?;
    let (flow, first, last) = running.measure(Duration::from_secs(2), Duration::from_secs(8), now).await?;
    running.end().await?;
    collector.stop(Duration::from_secs(20));
    // strace ends with what it traces, a moment later.
    let text = until("the trace is complete", async || {
        let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
        check(text.contains("+++ exited with"), "it is not").map_err(str::to_owned).map(|()| text)
    })
    .await;
    let log = collector.data().join("log").canonicalize()?.display().to_string();
    let seen = syncs::read(&text, &log)?;
    // strace and this program read the same clock.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of this century are exact in an f64")]
    let [from, until] = [first, last].map(|time| time.micros() as f64 / 1e6);
    let syncs = seen.syncs_within(from, until);
    anyhow::ensure!(syncs > 0, "the trace shows no sync in the measured window");
    let figures = json!({
        "connections": count,
        "calls": seen.calls,
        "checkpoints": seen.checkpoints,
        "covered": seen.covered,
        "folder_synced": seen.folder_synced,
        "syncs_per_checkpoint": per(seen.syncs.len() as f64, seen.checkpoints),
        "window_seconds": until - from,
        "syncs_per_second": syncs as f64 / (until - from),
        "acknowledged_in_window": flow.reports,
        "acknowledged_per_sync": per(flow.reports as f64, syncs),
    });
    Ok((figures, seen))
}
