//! Bytes of any kind where messages are expected: as gRPC messages, and as the frames around them.

use prost::bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// Path of the ingest stream.
pub const STREAM_REPORTS: &str = "/muster.v1.IngestService/StreamReports";

/// Sends `messages` as they are on a stream at `path`, and returns what came back, or the status that ended it.
///
/// # Errors
///
/// The status that the collector ends the stream with.
pub async fn stream(channel: Channel, path: &'static str, messages: Vec<Bytes>) -> Result<Vec<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = tonic::Request::new(tokio_stream::iter(messages));
    let mut answers = grpc.streaming(request, http::uri::PathAndQuery::from_static(path), Verbatim).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

/// Sends `body` as the whole body of a call, its gRPC frames included, and returns the HTTP status and the gRPC code.
///
/// # Errors
///
/// When the connection ends instead.
pub async fn call(channel: Channel, path: &str, body: Bytes) -> anyhow::Result<(u16, Option<i32>)> {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let request = http::Request::post(format!("http://muster{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::Full::new(body)))?;
    let response = channel.oneshot(request).await?;
    let (parts, body) = response.into_parts();
    let in_headers = code(&parts.headers);
    let trailers = body.collect().await.ok().and_then(|whole| whole.trailers().cloned());
    Ok((parts.status.as_u16(), in_headers.or_else(|| trailers.as_ref().and_then(code))))
}

/// Calls `path` with an empty message and returns the gRPC code of the answer; 0 when the call is taken and stays open.
///
/// # Errors
///
/// When the connection ends instead.
pub async fn code_of(channel: Channel, path: &str) -> anyhow::Result<i32> {
    use tower::ServiceExt as _;

    let request = http::Request::post(format!("http://muster{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::Full::new(frame(&[], 0))))?;
    let response = channel.oneshot(request).await?;
    Ok(code(response.headers()).unwrap_or(0))
}

/// Returns `message` in the frame of gRPC, which declares `declared` bytes.
pub fn frame(message: &[u8], declared: u32) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&declared.to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

fn code(headers: &http::HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Takes bytes for messages.
#[derive(Clone, Copy, Debug, Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
