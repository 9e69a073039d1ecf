//! Numbers about the collector itself, in Prometheus's text format on a listener of their own. No host names, no secrets.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often old samples of histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// What Prometheus asks for.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of the buckets of every duration, in seconds.
const SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Returns the process's recorder, which is installed at the first call.
///
/// # Errors
///
/// When another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let matcher = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
    let handle = PrometheusBuilder::new().set_buckets_for_metric(matcher, SECONDS)?.install_recorder()?;
    describe();
    metrics::gauge!("muster_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn describe() {
    use metrics::{Unit, describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    gauge!("muster_build_info", "1, with the version of the collector");
    counter!("muster_handshakes_total", "TLS handshakes by outcome");
    counter!("muster_handshakes_given_up_total", "TLS handshakes given up because too many were under way");
    counter!("muster_connections_refused_total", "Connections closed because too many were open");
    counter!("muster_calls_refused_total", "Calls that the gate refused");
    counter!("muster_token_refusals_total", "Enrolments refused for a token that was once good, by reason");
    counter!("muster_certificates_issued_total", "Certificates issued, by kind");
    gauge!("muster_ca_expiry_timestamp_seconds", Unit::Seconds, "When the CA certificate ends");
    gauge!("muster_log_entries", "Entries that the newest checkpoint covers");
    counter!("muster_log_checkpoints_total", "Checkpoints signed");
    counter!("muster_log_reports_total", "Reports written into the log");
    histogram!("muster_log_checkpoint_seconds", Unit::Seconds, "Time to make a checkpoint");
}

/// Notes when the CA certificate ends.
pub fn ca_ends(at: muster_proto::time::Timestamp) {
    metrics::gauge!("muster_ca_expiry_timestamp_seconds").set(at.seconds() as f64);
}

/// Serves `/metrics` on `listener` until `stop`.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(listener: TcpListener, handle: PrometheusHandle, stop: CancellationToken) -> std::io::Result<()> {
    let upkeep = handle.clone();
    let upkeep = async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    };
    let answer = move || {
        let handle = handle.clone();
        async move { ([(header::CONTENT_TYPE, TEXT)], handle.render()).into_response() }
    };
    let router = Router::new().route("/metrics", get(answer));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        () = upkeep => Ok(()),
        // A scrape that is under way is dropped with the listener.
        () = stop.cancelled() => Ok(()),
    }
}

/// Opens the listener at `address`.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
