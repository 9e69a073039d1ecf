//! Verifies a snapshot: pure, without network, collector or clock. Judges every control again from the signed reports.
//!
//! Nothing that the file says is believed. What it was made from (parameters, entries, proofs, checkpoint, catalogue) is read and
//! checked against signatures and hashes; everything else is made again from that and compared byte for byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    str,
    time::Duration,
};

use muster_proto::{
    id::{AgentId, Digest},
    seal::{ENROLL_DOMAIN, EvidencePublicKey, sealed_digest},
    v1::{self, log_entry::Entry},
    words::counted,
};
use prost::Message as _;
use serde::Deserialize;

use super::{
    archive::{self, Files},
    bundle::{self, BUILT_IN, Bundle, CHECKPOINT, Inputs, OVERLAY, PROOFS, SUPPORT, Told},
    fleet::Fleet,
    manifest::{self, FORMAT, FileRef, Manifest},
    select::{Broken, Selection, Selector},
    signature,
};
use crate::{
    control::{Catalogue, Texts},
    log::{self, Checkpoint},
};

/// Problems that are listed, at most; one broken file can break all that rest on it.
const PROBLEMS: usize = 100;

/// What is trusted from outside the file.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Key of the collector's log (signed-note vkey).
    pub log_key: Option<String>,
    /// SHA-256 of the collector's CA certificate.
    pub ca_digest: Option<Digest>,
}

/// What became of a verification.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verification {
    /// Whether nothing is wrong.
    pub valid: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What the file says that it is, once it could be read.
    pub manifest: Option<Manifest>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether the log's key was given from outside.
    pub log_key_trusted: bool,
    /// What follows from signatures and hashes alone.
    pub proven: Vec<String>,
    /// What rests on somebody's word.
    pub claimed: Vec<String>,
    /// What cannot be told from the file.
    pub unknown: Vec<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Problem {
    /// File inside the snapshot; empty for the snapshot as a whole.
    pub file: String,
    /// What.
    pub what: String,
}

impl Verification {
    fn problem(&mut self, file: &str, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(Problem { file: file.to_owned(), what: what.into() });
        }
    }
}

/// Verifies a snapshot.
pub fn verify(bytes: &[u8], trust: &Trust) -> Verification {
    let mut out = Verification { sha256: Digest::of_bytes(bytes).to_string(), ..Verification::default() };
    match archive::read(bytes) {
        Ok(files) => check(&mut out, &files, trust),
        Err(_) if !archive::is_like_a_snapshot(bytes) => out.problem(
            "",
            "this is no Muster snapshot: those are zip files with a manifest.json, as `musterctl snapshot get` writes them",
        ),
        Err(error) => out.problem(file_of(&error), error.to_string()),
    }
    out.valid = out.problems.is_empty();
    out
}

fn file_of(error: &archive::Error) -> &str {
    match error {
        archive::Error::Order { name }
        | archive::Error::Cut { name }
        | archive::Error::Checksum { name }
        | archive::Error::Packed { name } => name,
        // Between files it is in none.
        archive::Error::Byte { place, .. } if place.starts_with("the ") => "",
        archive::Error::Byte { place, .. } => place,
        archive::Error::TooLarge | archive::Error::Name { .. } => "",
    }
}

fn check(out: &mut Verification, files: &Files<'_>, trust: &Trust) {
    let Some(manifest) = read_manifest(out, files) else { return };
    check_files(out, files, &manifest);
    check_signature(out, files, &manifest);
    let catalogue = read_catalogue(out, files, &manifest);
    let checkpoint = check_checkpoint(out, files, &manifest, trust);
    let entries = entries(files);
    let proofs = read_proofs(out, files, &entries);
    out.manifest = Some(manifest.clone());
    let (Some(checkpoint), Some(catalogue), Some(proofs)) = (checkpoint, catalogue, proofs) else { return };
    check_inclusion(out, &checkpoint, &entries, &proofs);
    let selection = select(out, &manifest, &catalogue, &entries);
    check_in_force(out, &catalogue, &selection);
    check_claims(out, &manifest, &entries, &selection);
    let mut tally = Tally::default();
    check_signatures(out, &entries, &selection, &mut tally);
    check_made_again(out, files, &manifest, &catalogue, &checkpoint, &entries, &proofs, &selection);
    let judges_revoked = manifest.parameters.hosts.is_some();
    let fleet = Fleet::new(&entries, &selection, judges_revoked);
    check_collector(out, &fleet, &manifest, trust);
    conclude(out, &manifest, &catalogue, &fleet, &tally, trust.log_key.is_some());
}

fn read_manifest(out: &mut Verification, files: &Files<'_>) -> Option<Manifest> {
    let Some(bytes) = files.get(manifest::NAME).filter(|bytes| bytes.len() <= manifest::LIMIT_BYTES) else {
        out.problem(manifest::NAME, "it is missing or too large");
        return None;
    };
    // The format first, so that a newer one is named instead of complained about.
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    match serde_json::from_slice::<Format>(bytes) {
        Ok(it) if it.format == FORMAT => {}
        Ok(it) => {
            let format = muster_proto::fact::Text::cut(&it.format, 64);
            out.problem(manifest::NAME, format!("the format is {format}; this program reads {FORMAT}"));
            return None;
        }
        Err(error) => {
            out.problem(manifest::NAME, format!("it is not a manifest: {error}"));
            return None;
        }
    }
    match serde_json::from_slice(bytes) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            out.problem(manifest::NAME, format!("it is not a manifest: {error}"));
            None
        }
    }
}

fn check_files(out: &mut Verification, files: &Files<'_>, manifest: &Manifest) {
    for (name, reference) in &manifest.files {
        match files.get(name.as_str()) {
            None => out.problem(name, "the manifest names it and it is missing"),
            Some(content) if FileRef::of(content) != *reference => {
                out.problem(name, "it does not have the size and SHA-256 of the manifest");
            }
            Some(_) => {}
        }
    }
    let is_named = |name: &str| manifest.files.contains_key(name) || [manifest::NAME, signature::NAME].contains(&name);
    for name in files.keys().filter(|name| !is_named(name)) {
        out.problem(name, "the manifest does not name it");
    }
}

/// Whoever changes anything at all must sign it anew, and only the collector can.
fn check_signature(out: &mut Verification, files: &Files<'_>, manifest: &Manifest) {
    let bytes = files.get(manifest::NAME).copied().unwrap_or_default();
    let Some(note) = files.get(signature::NAME) else {
        out.problem(signature::NAME, "it is missing: nobody signed manifest.json");
        return;
    };
    if let Err(error) = signature::verify(note, bytes, &manifest.log.key) {
        let what = "manifest.json is not what the collector signed: the snapshot was changed or made by somebody else";
        out.problem(signature::NAME, format!("{what} ({error})"));
    }
}

/// What judges must be what the log says was in force, or what everybody has.
fn check_in_force(out: &mut Verification, catalogue: &Catalogue, selection: &Selection) {
    if selection.catalogue.is_none() && catalogue.texts() != Catalogue::built_in().texts() {
        let what =
            "the log does not say that this catalogue was in force, and it is not the one built into this program";
        out.problem(BUILT_IN, what);
    }
}

/// What the collector says of entries that are not here must not contradict those that are.
fn check_claims(out: &mut Verification, manifest: &Manifest, entries: &BTreeMap<u64, Vec<u8>>, selection: &Selection) {
    let last = manifest.log.size.checked_sub(1).filter(|last| entries.contains_key(last));
    if last.is_some() && selection.last_received != manifest.log.last_received_time {
        out.problem(manifest::NAME, "log.last_received_time is not that of the last entry");
    }
    let hosts = selection.hosts.len() as u64;
    let is_whole = manifest.parameters.hosts.is_none();
    if manifest.log.hosts_enrolled < hosts || is_whole && manifest.log.hosts_enrolled != hosts {
        out.problem(manifest::NAME, format!("log.hosts_enrolled is not the number of hosts here, {hosts}"));
    }
    for (agent, track) in &selection.hosts {
        if let (false, None, Some((index, _))) = (track.agrees(), track.broken, track.digest) {
            let what =
                format!("host {agent} signed for other facts here than its reports give: one was left out or put in");
            out.problem(&bundle::entry_name(index), what);
        }
    }
}

fn read_catalogue(out: &mut Verification, files: &Files<'_>, manifest: &Manifest) -> Option<Catalogue> {
    let text = |name: &str| Some(str::from_utf8(files.get(name)?).ok()?.to_owned());
    let (Some(built_in), Some(support), Some(overlay)) = (text(BUILT_IN), text(SUPPORT), text(OVERLAY)) else {
        out.problem(BUILT_IN, "a text of the catalogue is missing or not UTF-8");
        return None;
    };
    let texts = Texts { built_in, support, overlay };
    // Nothing is parsed that the manifest does not stand for.
    if texts.digest() != manifest.catalogue.digest {
        out.problem(BUILT_IN, "the catalogue's texts do not have the digest that the manifest states");
        return None;
    }
    match Catalogue::from_texts(texts) {
        Ok(catalogue) => Some(catalogue),
        Err(error) => {
            let error = muster_proto::fact::Text::cut(&error.to_string(), 512);
            out.problem(BUILT_IN, format!("this program cannot judge with the catalogue: {error}"));
            None
        }
    }
}

fn check_checkpoint(
    out: &mut Verification,
    files: &Files<'_>,
    manifest: &Manifest,
    trust: &Trust,
) -> Option<Checkpoint> {
    if let Some(key) = &trust.log_key {
        if *key != manifest.log.key {
            out.problem(CHECKPOINT, "it is of another log: the key that you trust is not the one of this snapshot");
        }
        out.log_key_trusted = *key == manifest.log.key;
    }
    let note = files.get(CHECKPOINT).copied().unwrap_or_default();
    let checkpoint = match log::verify_checkpoint(note, &manifest.log.key) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            out.problem(CHECKPOINT, error.to_string());
            return None;
        }
    };
    if checkpoint.size != manifest.parameters.log_size {
        out.problem(CHECKPOINT, "its size is not the log size of the manifest");
        return None;
    }
    Some(checkpoint)
}

fn entries(files: &Files<'_>) -> BTreeMap<u64, Vec<u8>> {
    files.iter().filter_map(|(name, content)| Some((bundle::entry_index(name)?, content.to_vec()))).collect()
}

fn read_proofs(
    out: &mut Verification,
    files: &Files<'_>,
    entries: &BTreeMap<u64, Vec<u8>>,
) -> Option<BTreeMap<u64, Vec<Digest>>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Proof {
        log_index: u64,
        hashes: Vec<Digest>,
    }
    let proofs: Vec<Proof> = match serde_json::from_slice(files.get(PROOFS).copied().unwrap_or_default()) {
        Ok(proofs) => proofs,
        Err(error) => {
            out.problem(PROOFS, format!("it is no list of proofs: {error}"));
            return None;
        }
    };
    let proofs: BTreeMap<_, _> = proofs.into_iter().map(|proof| (proof.log_index, proof.hashes)).collect();
    if !proofs.keys().eq(entries.keys()) {
        out.problem(PROOFS, "it does not have one proof for each entry");
    }
    Some(proofs)
}

fn check_inclusion(
    out: &mut Verification,
    checkpoint: &Checkpoint,
    entries: &BTreeMap<u64, Vec<u8>>,
    proofs: &BTreeMap<u64, Vec<Digest>>,
) {
    for (index, entry) in entries {
        let hashes = proofs.get(index).map(Vec::as_slice).unwrap_or_default();
        if log::verify_inclusion(entry, *index, checkpoint.size, &checkpoint.root, hashes).is_err() {
            out.problem(&bundle::entry_name(*index), "the log does not hold it: its inclusion proof does not verify");
        }
    }
}

/// Selects again from the entries that are there: each is needed, and none that they need is missing.
fn select(
    out: &mut Verification,
    manifest: &Manifest,
    catalogue: &Catalogue,
    entries: &BTreeMap<u64, Vec<u8>>,
) -> Selection {
    let parameters = &manifest.parameters;
    let hosts: Option<BTreeSet<AgentId>> = parameters.hosts.as_ref().map(|hosts| hosts.iter().copied().collect());
    let broken: Broken = manifest.broken.iter().map(|broken| (broken.agent_id, broken.log_index)).collect();
    let mut selector = Selector::again(parameters.as_of, hosts.clone(), catalogue.digest(), broken);
    for (index, entry) in entries {
        selector.take(*index, entry);
    }
    let selection = selector.finish();
    let needed = selection.indexes();
    for index in entries.keys().filter(|index| !needed.contains(index)) {
        out.problem(&bundle::entry_name(*index), "nothing rests on it");
    }
    for host in hosts.iter().flatten().filter(|host| !selection.hosts.contains_key(host)) {
        out.problem(manifest::NAME, format!("host {host} is in scope and its enrolment is missing"));
    }
    for id in parameters.controls.iter().flatten().filter(|id| catalogue.control(id.as_str()).is_none()) {
        out.problem(manifest::NAME, format!("control {id} is in scope and not in the catalogue"));
    }
    selection
}

/// What was checked, for the conclusion.
#[derive(Debug, Default)]
struct Tally {
    reports: u64,
    links: u64,
    /// Reports whose predecessor is not in the file.
    unlinked: u64,
    proofs: u64,
    unproven: u64,
}

fn check_signatures(
    out: &mut Verification,
    entries: &BTreeMap<u64, Vec<u8>>,
    selection: &Selection,
    tally: &mut Tally,
) {
    let mut keys = BTreeMap::new();
    for (agent, track) in &selection.hosts {
        if let Some((index, enrollment)) = track.enrolled.and_then(|index| Some((index, enrollment(entries, index)?))) {
            match check_enrollment(*agent, &enrollment, tally) {
                Ok(key) => drop(keys.insert(*agent, key)),
                Err(what) => out.problem(&bundle::entry_name(index), what),
            }
        }
    }
    let mut chains: BTreeMap<_, (u64, u64, Digest)> = BTreeMap::new();
    for (index, bytes) in entries {
        let Ok(v1::LogEntry { entry: Some(Entry::Report(admitted)), .. }) = v1::LogEntry::decode(bytes.as_slice())
        else {
            continue;
        };
        match check_report(&admitted, &keys, &mut chains, *index, tally) {
            Ok(()) => tally.reports += 1,
            Err(what) => out.problem(&bundle::entry_name(*index), what),
        }
    }
}

fn enrollment(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<v1::Enrollment> {
    match v1::LogEntry::decode(entries.get(&index)?.as_slice()).ok()?.entry? {
        Entry::Enrollment(enrollment) => Some(enrollment),
        _ => None,
    }
}

fn check_enrollment(
    agent: AgentId,
    enrollment: &v1::Enrollment,
    tally: &mut Tally,
) -> Result<EvidencePublicKey, String> {
    let key = EvidencePublicKey::new(&enrollment.evidence_public_key).map_err(|error| error.to_string())?;
    if key.agent_id() != agent {
        return Err("the agent id is not that of the evidence key".to_owned());
    }
    if enrollment.csr_digest.is_empty() {
        tally.unproven += 1;
        return Ok(key);
    }
    match key.verify(ENROLL_DOMAIN, &enrollment.csr_digest, &enrollment.proof) {
        Ok(()) => {
            tally.proofs += 1;
            Ok(key)
        }
        Err(_) => Err("the host did not sign its enrolment".to_owned()),
    }
}

fn check_report(
    admitted: &v1::AdmittedReport,
    keys: &BTreeMap<AgentId, EvidencePublicKey>,
    chains: &mut BTreeMap<(AgentId, muster_proto::id::Epoch), (u64, u64, Digest)>,
    index: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let sealed = admitted.sealed.as_ref().ok_or("it has no report")?;
    let report = muster_proto::report::Report::decode(&sealed.report).map_err(|error| error.to_string())?;
    let key = keys.get(&report.agent).ok_or("its agent has no valid enrolment here")?;
    key.verify_sealed(sealed).map_err(|_| "the report's signature does not verify")?;
    let here = (report.seq.number(), index, sealed_digest(sealed));
    let before = chains.insert((report.agent, report.epoch), here);
    let Some((seq, before_index, digest)) = before else {
        tally.unlinked += u64::from(report.previous.is_some());
        return Ok(());
    };
    if here.0 <= seq {
        return Err(format!("its sequence does not follow that of entry {before_index}"));
    }
    if here.0 == seq + 1 {
        if report.previous != Some(digest) {
            return Err(format!("it does not name the report before it, entry {before_index}"));
        }
        tally.links += 1;
    } else {
        tally.unlinked += 1;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "all that a snapshot is made of")]
fn check_made_again(
    out: &mut Verification,
    files: &Files<'_>,
    manifest: &Manifest,
    catalogue: &Catalogue,
    checkpoint: &Checkpoint,
    entries: &BTreeMap<u64, Vec<u8>>,
    proofs: &BTreeMap<u64, Vec<Digest>>,
    selection: &Selection,
) {
    let again = Bundle::new(&Inputs {
        parameters: manifest.parameters.clone(),
        made_by: manifest.made_by.clone(),
        catalogue,
        log_key: &manifest.log.key,
        checkpoint,
        entries,
        selection,
        proofs,
        told: Told { last_received: manifest.log.last_received_time, hosts_enrolled: manifest.log.hosts_enrolled },
    });
    for (name, content) in &again.files {
        match files.get(name.as_str()) {
            Some(is) if *is == content.as_slice() => {}
            Some(is) => {
                let line = 1 + is.iter().zip(content).take_while(|(a, b)| a == b).filter(|(a, _)| **a == b'\n').count();
                out.problem(name, format!("line {line} is not what the evidence gives"));
            }
            None => out.problem(name, "it is missing"),
        }
    }
    for name in files.keys().filter(|name| !again.files.contains_key(**name) && **name != signature::NAME) {
        out.problem(name, "a snapshot has no such file");
    }
}

fn check_collector(out: &mut Verification, fleet: &Fleet, manifest: &Manifest, trust: &Trust) {
    let Some(collector) = &fleet.collector else {
        out.unknown.push("The log does not say how the collector came into being.".to_owned());
        if trust.ca_digest.is_some() {
            out.problem("", "the CA cannot be checked: the entry that made the collector is missing");
        }
        return;
    };
    let file = bundle::entry_name(collector.index);
    if collector.log_key != manifest.log.key {
        out.problem(&file, "the log's key is not the one that the collector was made with");
    }
    if trust.ca_digest.is_some_and(|pin| collector.ca_digest != Some(pin)) {
        out.problem(&file, "the collector's CA is not the one that you trust");
    }
}

/// Says what was found, in words. Whatever is wrong is among the problems.
fn conclude(
    out: &mut Verification,
    manifest: &Manifest,
    judge: &Catalogue,
    fleet: &Fleet,
    tally: &Tally,
    is_key_given: bool,
) {
    let Manifest { counts, parameters, catalogue, .. } = manifest;
    if out.problems.is_empty() {
        out.proven.push(
            "Every byte of the file is accounted for, and is what the collector made: its log's key signed the manifest.".to_owned(),
        );
        out.proven.push(format!(
            "The log of {} whose checkpoint this key signed holds all that is here of it, {}: {}",
            counted(parameters.log_size, "entry"),
            counted(counts.evidence, "entry"),
            manifest.log.key
        ));
        out.proven
            .push(format!("{} here, each signed with its agent's evidence key.", counted(tally.reports, "report")));
        out.proven.push(format!(
            "{} here, each bound to the evidence key that its agent id is the hash of; {} signed the enrolment with it.",
            counted(counts.hosts, "host"),
            tally.proofs
        ));
        let agreeing = fleet.hosts.iter().filter(|host| host.fact_set.is_some_and(|stated| stated.agrees)).count();
        out.proven.push(format!(
            "For {} the facts are all the facts that the host signed for in the newest report here: none is left out, none is from \
             another time.",
            counted(agreeing, "host")
        ));
        if tally.links > 0 {
            out.proven.push(format!(
                "{} here, each after one that it names and that is here too.",
                counted(tally.links, "report")
            ));
        }
        if let Some(index) = catalogue.log_index {
            out.proven.push(format!("Entry {index} of the log put catalogue {} in force.", catalogue.version));
        }
        out.proven.push(format!(
            "Judged again at {} with the same result: {}, {} pass, {} fail, {} unknown, {} no data, {} not applicable, {} excepted.",
            parameters.as_of,
            counted(counts.results, "verdict"),
            counts.verdicts.pass,
            counts.verdicts.fail,
            counts.verdicts.unknown,
            counts.verdicts.no_data,
            counts.verdicts.not_applicable,
            counts.verdicts.excepted
        ));
    }
    claims(out, manifest, judge, tally, is_key_given);
    let acknowledged: usize = fleet.hosts.iter().map(|host| host.acknowledgements.len()).sum();
    if acknowledged > 0 {
        out.claimed.push(format!(
            "That files are as they should be after {}: operators acknowledged it, and hosts.json says who and why.",
            counted(acknowledged, "change")
        ));
    }
    unknowns(out, fleet, manifest);
}

fn claims(out: &mut Verification, manifest: &Manifest, judge: &Catalogue, tally: &Tally, is_key_given: bool) {
    // Whoever gave another key is told so among the problems.
    if !out.log_key_trusted && !is_key_given {
        out.claimed.push(
            "That the log's key is the collector's: it comes from the file itself, and whoever forges a file puts their own there. Get it \
             from the operator (`muster-collector init` printed it, `musterctl log checkpoint` shows it, and on each host `muster-agent \
             status`) and give it with --log-key."
                .to_owned(),
        );
    }
    out.claimed.push("What hosts observed: facts are self-reported.".to_owned());
    if manifest.counts.passes_by_statement > 0 {
        let statements = judge.controls().flat_map(|control| &control.statements);
        let providers: BTreeSet<&str> = statements.map(|statement| statement.provider.as_str()).collect();
        out.claimed.push(format!(
            "What no agent could see, where a pass rests on a statement of {} and not on an observation ({}). The reasons in results.json name \
             each document; ask the operator for it and compare its SHA-256.",
            providers.into_iter().collect::<Vec<_>>().join(", "),
            counted(manifest.counts.passes_by_statement, "such verdict")
        ));
    }
    out.claimed
        .push("When reports were received, and the skew of hosts' clocks: the collector measured them.".to_owned());
    match manifest.parameters.hosts {
        None => out.claimed.push("That no other host was enrolled: the collector says so.".to_owned()),
        Some(_) => out.claimed.push(format!(
            "That what is to be looked at is {} of {} enrolled: whoever asked chose.",
            manifest.counts.hosts,
            counted(manifest.log.hosts_enrolled, "host")
        )),
    }
    if manifest.parameters.controls.is_some() {
        out.claimed.push(format!(
            "That what is to be judged is {} of {}: whoever asked chose.",
            manifest.counts.controls,
            counted(manifest.catalogue.controls, "control")
        ));
    }
    out.claimed.push(format!(
        "That no host has a later report in the part of the log that this is made from, {}: the collector says so.",
        counted(manifest.parameters.log_size, "entry")
    ));
    if tally.unlinked > 0 {
        let unlinked = counted(tally.unlinked, "report");
        out.claimed.push(format!("What was before {unlinked} whose predecessor is not here: ask the log for it."));
    }
    if manifest.catalogue.log_index.is_none() {
        out.claimed.push("That the built-in catalogue was in force: the log did not hold it yet.".to_owned());
    }
}

fn unknowns(out: &mut Verification, fleet: &Fleet, manifest: &Manifest) {
    let as_of = manifest.parameters.as_of;
    match manifest.log.last_received_time {
        Some(last) if last >= as_of => {}
        Some(last) => out.unknown.push(format!(
            "What the collector received in the {} before {as_of}: the last entry covered is of {last}.",
            span(as_of.since(last))
        )),
        None => out.unknown.push(format!("How long before {as_of} the entries covered end.")),
    }
    let count = |is: &dyn Fn(&super::fleet::Host) -> bool| fleet.hosts.iter().filter(|host| is(host)).count();
    let silent = count(&|host| host.is_judged && host.last.is_none());
    if silent > 0 {
        out.unknown.push(format!("{} that never reported: nothing is known.", counted(silent, "host")));
    }
    let broken = count(&|host| host.fact_set.is_some_and(|stated| !stated.agrees));
    if broken > 0 {
        out.unknown.push(format!(
            "The state of {} that signed for other facts than those here, and is judged unknown. Either the host's reports do not add \
             up, or the collector left one out; hosts.json and manifest.json (broken) name it.",
            counted(broken, "host")
        ));
    }
    let late = count(&|host| host.last.as_ref().is_some_and(|last| last.received > as_of));
    if late > 0 {
        out.unknown.push(format!(
            "{} that reported late: the last report is of before {as_of} by the host's clock, and was received after it.",
            counted(late, "host")
        ));
    }
    out.unknown
        .push("What happened between looks; hosts.json states the largest gap of each probe's last span.".to_owned());
}

/// Returns a span of time as a person reads it: its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        86400.. => format!("{} {} h", counted(seconds / 86400, "day"), seconds / 3600 % 24),
    }
}
