//! Broken frames below the contract: TCP, TLS, HTTP/2, gRPC, protobuf.

use std::time::Duration;

use muster_proto::{
    limits,
    v1::{self, StreamReportsRequest, stream_reports_request::Step},
};
use muster_tests::{
    harness::{now, scene::Scene},
    load::{
        Chain, Session,
        raw::{self, STREAM_REPORTS},
        session::{hello, reason},
    },
};
use prost::{Message as _, bytes::Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

/// A way to spoil a Hello.
type Spoil = (&'static str, fn(&mut v1::Hello));

fn step(step: Step) -> Bytes {
    StreamReportsRequest { step: Some(step) }.encode_to_vec().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_out_of_place_end_the_stream_with_a_reason() {
    let mut scene = Scene::set("steps out of place").await;
    let identity = scene.enroll("out of place").await;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let good = hello(&chain, &[]);
    let body = chain.epoch_started();
    let report = step(Step::Report(chain.seal(&identity.keys.evidence, body, now())));
    let first = step(Step::Hello(good.clone()));
    let nothing = Bytes::from(StreamReportsRequest { step: None }.encode_to_vec());
    let cases = [
        ("a report first", vec![report.clone()], "HELLO_EXPECTED"),
        ("no step first", vec![nothing.clone()], "HELLO_EXPECTED"),
        ("Hello twice", vec![first.clone(), first.clone()], ""),
        ("no step later", vec![first.clone(), nothing], ""),
    ];
    for (what, messages, expected) in cases {
        let status = raw::stream(identity.channel().await.unwrap(), STREAM_REPORTS, messages).await.unwrap_err();
        let (code, reason) = reason(&status);
        assert_eq!(code, Code::InvalidArgument, "{what}: {status:?}");
        assert!(expected.is_empty() || reason == expected, "{what}: {status:?}");
    }

    let spoils: &[Spoil] = &[
        ("contract version 0", |hello| hello.contract_version = 0),
        ("contract version 99", |hello| hello.contract_version = 99),
        ("epoch empty", |hello| hello.epoch.clear()),
        ("epoch of 15 bytes", |hello| {
            hello.epoch.pop();
        }),
        ("next sequence 0", |hello| hello.next_sequence = 0),
        ("head digest of 5 bytes", |hello| hello.head_digest = vec![1; 5]),
        ("nonce of 5 bytes", |hello| hello.last_session_nonce = vec![1; 5]),
        ("no host time", |hello| hello.host_time = None),
        ("host time before 1970", |hello| {
            hello.host_time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
        }),
        ("checkpoint root of 5 bytes", |hello| {
            hello.last_checkpoint = Some(v1::CheckpointRef { size: 1, root: vec![1; 5], origin: "c1".to_owned() });
        }),
        ("agent version of 65 bytes", |hello| hello.agent_version = "1".repeat(65)),
    ];
    for (what, spoil) in spoils {
        let mut hello = good.clone();
        spoil(&mut hello);
        let status = Session::open_with(&identity, hello).await.expect_err(what);
        assert_eq!(reason(&status), (Code::InvalidArgument, "HELLO_INVALID".to_owned()), "{what}: {status:?}");
    }
    let log = scene.end().await;
    assert!(!log.chains().unwrap().keys().any(|(agent, _)| *agent == identity.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_end_only_their_own_stream() {
    let mut scene = Scene::set("messages that are none").await;
    let identity = scene.enroll("garbage").await;
    let chain = Chain::begin(identity.id, &mut scene.random, now());
    let first = step(Step::Hello(hello(&chain, &[])));
    let mut cases: Vec<Bytes> = vec![
        vec![0xff; 100].into(),
        // Field 2 that declares 2 GiB; a varint without an end; a group without an end, nested.
        vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 2, 3].into(),
        vec![0x80; 20].into(),
        vec![0x0b; 30_000].into(),
        // One byte more than a message may have, and far more.
        vec![0; limits::AGENT_MESSAGE_BYTES + 1].into(),
        vec![0; 8 * 1024 * 1024].into(),
    ];
    cases.extend((0..40).map(|_| Bytes::from(scene.random.bytes(400))));
    for bytes in cases {
        for messages in [vec![bytes.clone()], vec![first.clone(), bytes.clone()]] {
            let channel = identity.channel().await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(20), raw::stream(channel, STREAM_REPORTS, messages));
            let what = format!("{} bytes that begin with {:02x?}", bytes.len(), &bytes[..bytes.len().min(20)]);
            match answer.await {
                Ok(Err(status)) => assert_ne!(status.code(), Code::Ok, "{what}"),
                // Chance may write an unknown field alone, which is a step without a kind at worst.
                Ok(Ok(answers)) => panic!("{what} were taken: {answers:?}"),
                Err(_) => panic!("{what}: the stream stays open"),
            }
        }
    }
    scene.honest_goes_on().await;

    // The frames of gRPC themselves: a declared 4 GiB, a cut message, a compression that was never agreed.
    for body in [
        raw::frame(b"short", u32::MAX),
        raw::frame(b"short", 100),
        Bytes::from_static(&[1, 0, 0, 0, 1, 0]),
        Bytes::from_static(&[0xff; 64]),
        Bytes::from_static(&[0, 0]),
    ] {
        let channel = identity.channel().await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(20), raw::call(channel, STREAM_REPORTS, body.clone()));
        // An answer or the end of the connection, but an end.
        if let Ok((http, grpc)) = answer.await.expect("an end") {
            assert!(http != 200 || grpc != Some(0), "{body:?} was taken");
        }
    }
    let log = scene.end().await;
    assert!(!log.chains().unwrap().keys().any(|(agent, _)| *agent == identity.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_none_are_ended_and_harm_nobody() {
    let mut scene = Scene::set("connections that are none").await;
    let identity = scene.enroll("half open").await;
    let address = scene.target.address;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    for n in 0..200 {
        let mut garbage = tokio::net::TcpStream::connect(address).await.unwrap();
        let bytes = match n % 3 {
            0 => scene.random.bytes(500),
            1 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            // A TLS record that declares more than it has.
            _ => [&[22, 3, 1, 0x40, 0], scene.random.bytes(100).as_slice()].concat(),
        };
        // The collector may have closed it already.
        let _ = garbage.write_all(&bytes).await;
    }
    for _ in 0..50 {
        let mut tls = scene.target.connect(identity.tls()).await.unwrap();
        let _ = tls.write_all(&scene.random.bytes(2000)).await;
        let _ = tls.flush().await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), tls.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "garbage inside TLS leaves the connection open");
    }
    scene.honest_goes_on().await;
    drop(silent);
    scene.end().await;
}
