//! Every parser that meets bytes from elsewhere, with valid input to begin from: what property tests and fuzzers drive.
//!
//! A parser here takes any bytes and must come back: it may refuse them, and may not panic, hang or take what they ask for. Where
//! something comes out, it must survive its own round trip, which the parser's function checks.

mod captures;
mod packages;
pub mod targets;

use std::{fs, path::Path, time::Duration};

use muster_agent::{checkpoint::LogKey, enroll, fim, host, identity, probe::PROBES, spool::State};
use muster_collector::{
    config, control, ingest, log,
    pki::RequestedKey,
    query::{
        filter::{Field, Filter},
        page::Page,
    },
    snapshot,
};
use muster_proto::{
    fact::{Fact, sample},
    id::{AgentId, Digest, Epoch},
    report::Report,
    seal, v1,
};
use prost::Message as _;

use crate::harness::{now, random::Random};

/// One parser.
pub struct Parser {
    /// Its name, such as `report` or `probe/firewall/ufw/answers/nf_tables.rules`.
    pub name: String,
    /// Valid inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Parses.
    pub parse: Parse,
}

/// Takes any bytes; panics where a promise is broken.
pub type Parse = Box<dyn Fn(&[u8])>;

/// Returns every parser. `scratch` is a folder for those that read files.
pub fn parsers(scratch: &Path) -> Vec<Parser> {
    let mut parsers = parsers_of_bytes(scratch);
    parsers.extend(PROBES.iter().flat_map(|probe| captures::parsers(*probe, scratch)));
    parsers
}

/// Returns the parsers of what is not a file of a captured machine.
fn parsers_of_bytes(scratch: &Path) -> Vec<Parser> {
    let mut parsers = vec![
        parser("report", reports(), |bytes| {
            if let Ok(report) = Report::decode(bytes) {
                assert_eq!(Report::decode(&report.encode()).as_ref(), Ok(&report));
            }
        }),
        parser("sealed_report", reports().iter().map(|report| sealed(report).encode_to_vec()).collect(), |bytes| {
            if let Some(sealed) = seal::decode_sealed(bytes) {
                seal::sealed_digest(&sealed);
                // Only the key that signed may say yes; whatever the bytes are, this one did not.
                assert!(seal::EvidencePublicKey::new(&KEY).is_ok_and(|key| key.verify_sealed(&sealed).is_err()));
            }
        }),
        parser("evidence_key", vec![KEY.to_vec()], |bytes| drop(seal::EvidencePublicKey::new(bytes))),
        parser("fact", sample::facts().iter().map(Fact::encode).collect(), |bytes| {
            if let Ok(fact) = Fact::decode(bytes) {
                assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(&fact));
                muster_proto::fact::render::render(&fact);
            }
        }),
        parser("log_entry", entries(), |bytes| drop(v1::LogEntry::decode(bytes))),
        parser("agent/checkpoint", vec![NOTE.as_bytes().to_vec()], |bytes| {
            assert!(LogKey::new(VKEY).expect("a key").verify(bytes).is_err());
        }),
        parser("agent/log_key", vec![VKEY.as_bytes().to_vec()], |bytes| drop(LogKey::new(&text(bytes)))),
        parser("agent/spool_state", vec![State::new(Epoch::new([7; 16])).encode()], |bytes| {
            if let Ok(state) = State::decode(bytes) {
                assert!(State::decode(&state.encode()).is_ok());
            }
        }),
        parser("agent/luks_header", luks_headers(), |bytes| drop(host::luks::parse(bytes))),
        parser("agent/extended_attribute", extended_attributes(), |bytes| {
            for name in
                ["security.capability", "system.posix_acl_access", "system.posix_acl_default", "security.selinux"]
            {
                host::xattr::attribute(name.as_bytes(), bytes);
            }
        }),
        parser("agent/certificates", vec![certificate()], |bytes| {
            for certificate in identity::certificates(bytes).unwrap_or_default() {
                drop(identity::leaf(&certificate));
            }
        }),
        parser("collector/hello", hellos(), |bytes| {
            if let Ok(hello) = v1::Hello::decode(bytes) {
                drop(ingest::check_hello(&hello));
            }
        }),
        parser("collector/certificate_request", vec![certificate_request()], |bytes| {
            drop(RequestedKey::from_csr(bytes))
        }),
        parser("collector/checkpoint", vec![NOTE.as_bytes().to_vec()], |bytes| {
            assert!(log::verify_checkpoint(bytes, VKEY).is_err());
        }),
        parser("collector/snapshot", vec![archive()], |bytes| {
            let trust = snapshot::verify::Trust::default();
            assert!(!snapshot::verify::verify(bytes, &trust).valid);
        }),
        parser("collector/catalogue", vec![OVERLAY.as_bytes().to_vec()], |bytes| {
            drop(control::Catalogue::with_overlay(&text(bytes)));
        }),
        parser("collector/filter", FILTERS.iter().map(|filter| filter.as_bytes().to_vec()).collect(), |bytes| {
            drop(Filter::parse(&text(bytes), FIELDS).map(|filter| filter.matches(|_| "x".into())));
        }),
        parser("collector/page_token", vec![page_token()], |bytes| drop(Page::parse("hosts", "", 10, &text(bytes)))),
        parser("collector/config", vec![of_repository("deploy/config/collector.toml")], |bytes| {
            drop(config::Config::parse(Path::new("collector.toml"), &text(bytes), &config::Variables::default()));
        }),
        parser(
            "names",
            vec![b"spiffe://c1/agent/00000000000000000000000000000001".to_vec(), b"2026-11-26T10:00:00Z".to_vec()],
            |bytes| {
                let text = text(bytes);
                if let Ok(caller) = text.parse::<muster_proto::caller::Caller>() {
                    assert_eq!(caller.to_string(), text);
                }
                if let Ok(id) = text.parse::<AgentId>() {
                    assert_eq!(id.to_string(), text);
                }
                let _ = text.parse::<muster_proto::time::Timestamp>();
                drop(text.parse::<muster_proto::id::ControlId>());
            },
        ),
    ];
    parsers.push(in_file(scratch, "agent/config", "agent.toml", of_repository("deploy/config/agent.toml"), |path| {
        drop(muster_agent::config::load(Some(path), std::iter::empty()));
    }));
    let enrollment =
        format!("collector = \"https://c1:7443\"\ntoken = \"t\"\nca_pin = \"sha256:{}\"\n", Digest::new([3; 32]));
    parsers.push(in_file(scratch, "agent/enrollment_file", "enroll.toml", enrollment.into_bytes(), |path| {
        drop(enroll::Request::of_file(path));
    }));
    parsers.extend(integrity(scratch));
    parsers.extend(packages::parsers(scratch));
    parsers
}

/// Changes `bytes` the way damage and malice do: flips, cuts, repeats, splices, numbers at their edges.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.index(bytes.len());
        let length = random.index(bytes.len().saturating_sub(at).min(64) + 1);
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'\n', b'\\'][random.index(8)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let from = random.index(other.len());
                let piece = other[from..].iter().take(64).copied();
                bytes.splice(at..at + length, piece);
            }
            6 => drop(bytes.splice(at..at, random.bytes(8))),
            7 => {
                let edge = [u64::MAX, 1 << 63, u64::from(u32::MAX), 1 << 31, 0][random.index(5)];
                let edge = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                bytes.splice(at..at + length.min(8), edge);
            }
            _ => {
                let edge = ["18446744073709551616", "-1", "99999999999999999999999", "1e308", "\u{202e}", "\0", "%s"];
                bytes.splice(at..at + length.min(8), edge[random.index(edge.len())].bytes());
            }
        }
    }
}

fn parser(name: &str, seeds: Vec<Vec<u8>>, parse: impl Fn(&[u8]) + 'static) -> Parser {
    Parser { name: name.to_owned(), seeds, parse: Box::new(parse) }
}

/// A parser that reads a file.
fn in_file(scratch: &Path, name: &str, file: &str, seed: Vec<u8>, parse: impl Fn(&Path) + 'static) -> Parser {
    let path = scratch.join(file);
    parser(name, vec![seed], move |bytes| {
        write_anew(&path, bytes);
        parse(&path);
    })
}

/// Writes a file of its own: some file systems sync one that is written over.
fn write_anew(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("the scratch folder can be written");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of it")
}

fn of_repository(file: &str) -> Vec<u8> {
    fs::read(repository().join(file)).expect("it is there")
}

/// Whatever the bytes are, as text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn reports() -> Vec<Vec<u8>> {
    let mut random = Random::of(1);
    let key = seal::EvidenceKey::generate().expect("randomness").0;
    let mut chain = crate::load::Chain::begin(key.agent_id(), &mut random, crate::harness::now());
    let mut next = || {
        let body = chain.usual(now());
        chain.seal(&key, body, now()).report
    };
    (0..4).map(|_| next()).collect()
}

fn sealed(report: &[u8]) -> v1::SealedReport {
    v1::SealedReport { report: report.to_vec(), signature: vec![5; 64] }
}

fn entries() -> Vec<Vec<u8>> {
    let entry = |report: &Vec<u8>| {
        let admitted = v1::AdmittedReport { sealed: Some(sealed(report)), clock_skew_millis: 5 };
        let entry = Some(v1::log_entry::Entry::Report(admitted));
        v1::LogEntry { received_time: Some(now().to_wire()), entry }.encode_to_vec()
    };
    reports().iter().map(entry).collect()
}

fn certificate() -> Vec<u8> {
    let signed = rcgen::generate_simple_self_signed(["c1".to_owned()]).expect("a key can be made");
    signed.cert.pem().into_bytes()
}

fn certificate_request() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request can be signed");
    assert!(RequestedKey::from_csr(request.der()).is_ok(), "a request of a real form");
    request.der().to_vec()
}

/// What an agent says first: as little as it may, and all that there is.
fn hellos() -> Vec<Vec<u8>> {
    let least = v1::Hello {
        contract_version: 1,
        epoch: vec![7; 16],
        next_sequence: 1,
        host_time: Some(now().to_wire()),
        ..v1::Hello::default()
    };
    let checkpoint = v1::CheckpointRef { origin: "c1".to_owned(), size: 12, root: vec![9; 32] };
    let all = v1::Hello {
        agent_version: "0.1.0".to_owned(),
        head_digest: vec![8; 32],
        last_session_nonce: vec![6; 16],
        last_checkpoint: Some(checkpoint.clone()),
        proven_checkpoint: Some(checkpoint),
        ..least.clone()
    };
    let hellos = [least, all];
    assert!(hellos.iter().all(|hello| ingest::check_hello(hello).is_ok()), "an agent may say so");
    hellos.iter().map(v1::Hello::encode_to_vec).collect()
}

/// Headers of both versions, with no more than tells the cipher and the size of the key.
/// Capabilities of revision 3, an access control list and a label.
fn extended_attributes() -> Vec<Vec<u8>> {
    let capabilities = [0x0300_0001_u32, 1 << 5, 0, 0, 0, 1000].map(u32::to_le_bytes).concat();
    let entries = [(0x01_u16, 7_u16, u32::MAX), (0x02, 4, 1000), (0x04, 5, u32::MAX), (0x20, 5, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    vec![capabilities, list, b"system_u:object_r:bin_t:s0\0".to_vec()]
}

fn luks_headers() -> Vec<Vec<u8>> {
    let mut luks1 = vec![0; 592];
    luks1[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    luks1[8..11].copy_from_slice(b"aes");
    luks1[40..51].copy_from_slice(b"xts-plain64");
    luks1[108..112].copy_from_slice(&64_u32.to_be_bytes());
    let json =
        br#"{"keyslots":{"0":{"type":"luks2","key_size":64}},"digests":{"0":{"keyslots":["0"],"segments":["0"]}},
        "segments":{"0":{"type":"crypt","encryption":"aes-xts-plain64"}}}"#;
    let mut luks2 = b"LUKS\xba\xbe\0\x02".to_vec();
    luks2.extend(16_384_u64.to_be_bytes());
    luks2.resize(4096, 0);
    luks2.extend(json);
    assert!(host::luks::parse(&luks1).is_some() && host::luks::parse(&luks2).is_some(), "headers of a real form");
    vec![luks1, luks2]
}

fn page_token() -> Vec<u8> {
    let page = Page::parse("hosts", "", 1, "").expect("the first page");
    let (_, token) = page.take([("a".to_owned(), ()), ("b".to_owned(), ())].into_iter());
    assert!(Page::parse("hosts", "", 1, &token).is_ok(), "a token of the same list");
    token.into_bytes()
}

/// A small archive in the form of a snapshot.
fn archive() -> Vec<u8> {
    let files: [(&str, &[u8]); 2] = [("manifest.json", b"{}"), ("results.csv", b"host,control\n")];
    snapshot::archive::write(&files.into()).expect("small")
}

/// A key that verifies, whose private half nobody here has: the Ed25519 key of RFC 8032 section 7.1, test 1.
const KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72,
    0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// A verifier key and a note in their forms; the note's signature is not one.
const VKEY: &str = "quickstart+3ccfaf70+AX4gB0JPtqlHcV9gA/292XiN834dcS+El0CVXLZ5am0j";
const NOTE: &str = "quickstart\n12\nQjV8T64O9B77RHtwenAnQ3QuRftwKi2kdrX2AnMvX0g=\n\n\u{2014} quickstart PM+vcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n";

const OVERLAY: &str = "[parameters.PAT-02]\nmax_pending_days = 7\n";

const FIELDS: &[Field] = &[Field::text("id"), Field::of("state", &["active", "frozen"])];
const FILTERS: &[&str] = &["state = \"active\" AND (id:\"a\" OR NOT id != \"b\")", "id = \"\\\"x\\\"\""];

/// What the file-integrity engine keeps: whatever became of its files, they are whole or damaged, and never read as something else.
fn integrity(scratch: &Path) -> [Parser; 2] {
    let folder = scratch.join("integrity");
    fs::create_dir_all(folder.join("watched")).expect("a folder can be made");
    fs::write(folder.join("watched/file"), "1").expect("a file can be written");
    let sets = serde_json::json!([{ "name": "files", "paths": [folder.join("watched")] }]);
    let sets: Vec<fim::watch_set::WatchSet> = serde_json::from_value(sets).expect("a watch set");
    let sets = fim::Sets::new(&sets).expect("sets that can be watched");
    let (store, progress) = (fim::Store::at(&folder), fim::Progress::default());
    let request = fim::Request {
        host: &host::Live::new(),
        sets: &sets,
        store: &store,
        now: now(),
        run: 7,
        depth: fim::Depth::Full,
        scope: fim::Scope::All,
        pace: host::Pace::default(),
        reread: Duration::ZERO,
        power: fim::manners::Power::Mains,
        progress: &progress,
        actors: None,
    };
    fim::take_baseline(&request, &"first scan".into()).expect("a baseline");
    fs::write(folder.join("watched/file"), "2").expect("a file can be written");
    assert_eq!(fim::check(&request).map(|outcome| outcome.changes_total).ok(), Some(1));
    let parser_of = |name: &str, file: &str| {
        // A folder of its own, in which only this file is damaged.
        let own = folder.join(format!("of-{file}"));
        fs::create_dir_all(&own).expect("a folder can be made");
        for kept in ["baseline", "changes"] {
            fs::copy(folder.join(kept), own.join(kept)).expect("it was written");
        }
        let whole = fs::read(own.join(file)).expect("it was written");
        let (path, store) = (own.join(file), fim::Store::at(&own));
        parser(name, vec![whole.clone()], move |bytes| {
            write_anew(&path, bytes);
            assert_eq!(fim::verify(&store).is_ok(), bytes == whole);
        })
    };
    [parser_of("agent/fim_baseline", "baseline"), parser_of("agent/fim_changes", "changes")]
}
