//! What a real agent costs the machine that it looks at, at rest: memory and processor, with every default.
//!
//! `cargo run --release -p muster-tests --bin bench-rest -- [--seconds N]` (600)

use std::time::{Duration, Instant};

use muster_tests::{
    bench::{argument, bytes_below, circumstances, keep, rounded},
    harness::{agent::Agent, check, collector::Collector, until},
    load::Admin,
};
use serde_json::json;

/// What is aimed at: MiB of memory, percent of one processor.
const AIMS: (f64, f64) = (12.0, 0.1);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let span = Duration::from_secs(argument("seconds", 600));
    let before = circumstances();
    let collector = Collector::started();
    let admin = Admin::connect(&collector.target(), &collector.data().join("admin.pem")).await?;
    let mut agent = Agent::of(&collector, "");
    let start = Instant::now();
    agent.start();
    until("the agent reports", async || {
        let hosts = admin.fleet().list_hosts(muster_proto::v1::ListHostsRequest::default()).await;
        let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
        check(hosts.iter().any(|host| host.sequence > 1), agent.process().output())
    })
    .await;
    let first_report = start.elapsed();
    // The first look at everything is the dearest; it is shown beside the rest, not in it.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let process = agent.process();
    let (start_cpu, begin) = (process.cpu_seconds(), Instant::now());
    let mut most = 0;
    let mut samples = Vec::new();
    while begin.elapsed() < span {
        tokio::time::sleep(Duration::from_secs(5).min(span)).await;
        let (now, _) = process.memory_bytes();
        most = most.max(now);
        samples.push(now);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = process.cpu_seconds() - start_cpu;
    samples.sort_unstable();
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let (rss, peak) = process.memory_bytes();
    let results = json!({
        "benchmark": "rest", "machine": before, "aims": { "rss_mib": AIMS.0, "cpu_percent": AIMS.1 },
        "seconds": seconds,
        "seconds_to_first_report": first_report.as_secs_f64(),
        "cpu_seconds_of_start": start_cpu,
        "cpu_seconds": cpu,
        "cpu_percent": 100.0 * cpu / seconds,
        "rss_mib": mib(rss),
        "rss_median_mib": mib(samples[samples.len() / 2]),
        "rss_most_mib": mib(most),
        "rss_peak_since_start_mib": mib(peak),
        "state_bytes": bytes_below(&agent.state()),
    });
    println!("{}", serde_json::to_string_pretty(&rounded(&results))?);
    println!("kept in {}", keep("rest", &results)?.display());
    agent.stop(Duration::from_secs(10));
    Ok(())
}
