//! Makes a snapshot. Pure: the same inputs give the same bytes.
//!
//! ```text
//! README.txt            how to verify, with and without Muster
//! catalogue/*.toml      the exact texts that define the controls
//! checkpoint            signed size and root of the log (C2SP tlog-checkpoint)
//! controls.json         the controls that judged, with counts
//! evidence/N.entry      the exact entry N of the log
//! hosts.json, .csv      each host: where it stands, its last report, its facts and looks
//! keys.json             the keys that verify the signatures
//! manifest.json         parameters, counts, digest of each other file
//! manifest.sig          the collector's signature of manifest.json
//! proofs.json           for each entry, that the log holds it (RFC 6962)
//! results.json, .csv    each host and control: verdict, reason, times, evidence
//! ```

use std::collections::BTreeMap;

use muster_proto::{id::Digest, time::Timestamp};
use serde_json::{Value, json};

use super::{
    archive,
    csv::FORMULA_RULE,
    fleet::{Fleet, Verdict},
    manifest::{
        BrokenRef, CatalogueRef, CollectorRef, Counts, FORMAT, FileRef, LIMITS, LogRef, Manifest, NAME, Parameters,
        VerdictCounts,
    },
    readme,
    select::Selection,
    signature, tables,
};
use crate::{
    control::{
        Catalogue, Control,
        coverage::{self, Requirement},
    },
    log::{self, Checkpoint, Key},
};

/// What a snapshot is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What was asked for.
    pub parameters: Parameters,
    /// The program that makes it.
    pub made_by: String,
    /// The controls.
    pub catalogue: &'a Catalogue,
    /// Key that verifies the log's checkpoints.
    pub log_key: &'a str,
    /// Checkpoint of the log at `parameters.log_size`.
    pub checkpoint: &'a Checkpoint,
    /// The entries that the selection names.
    pub entries: &'a BTreeMap<u64, Vec<u8>>,
    /// What the entries are for.
    pub selection: &'a Selection,
    /// For each entry, that the log holds it.
    pub proofs: &'a BTreeMap<u64, Vec<Digest>>,
    /// What the collector says of all entries of the log.
    pub told: Told,
}

/// What the collector says of all entries up to the log's size, those that are not in the snapshot too.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When the last of them was received.
    pub last_received: Option<Timestamp>,
    /// Hosts that they enrolled by the instant.
    pub hosts_enrolled: u64,
}

/// A snapshot.
#[derive(Debug)]
pub struct Bundle {
    /// Its files by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Bundle {
    /// Makes the snapshot of `inputs`. Controls that the catalogue does not have are left out: the caller has checked them.
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let judges_revoked = inputs.parameters.hosts.is_some();
        let fleet = Fleet::new(inputs.entries, inputs.selection, judges_revoked);
        let controls = controls(inputs.catalogue, &inputs.parameters);
        let verdicts: Vec<Vec<Verdict<'_>>> =
            fleet.hosts.iter().map(|host| host.judge(&controls, inputs.parameters.as_of)).collect();

        let mut files = BTreeMap::new();
        let mut put = |name: &str, content: Vec<u8>| files.insert(name.to_owned(), content);
        for (index, entry) in inputs.entries {
            put(&entry_name(*index), entry.clone());
        }
        let texts = inputs.catalogue.texts();
        put(BUILT_IN, texts.built_in.clone().into_bytes());
        put(SUPPORT, texts.support.clone().into_bytes());
        put(OVERLAY, texts.overlay.clone().into_bytes());
        put(CHECKPOINT, inputs.checkpoint.note.to_vec());
        put(PROOFS, proofs(inputs));
        put("keys.json", keys(inputs, &fleet));
        put("controls.json", controls_json(&controls, &verdicts));
        put("coverage.json", coverage_json(&controls));
        put("hosts.json", tables::hosts_json(&fleet, &verdicts));
        put("hosts.csv", tables::hosts_csv(&fleet, &verdicts));
        put("results.json", tables::results_json(&fleet, &verdicts));
        put("results.csv", tables::results_csv(&fleet, &verdicts));
        let counts = counts(inputs, &fleet, &controls, &verdicts);
        let mut manifest = manifest(inputs, &fleet, counts);
        files.insert("README.txt".to_owned(), readme::text(&manifest).into_bytes());
        manifest.files = files.iter().map(|(name, content)| (name.clone(), FileRef::of(content))).collect();
        files.insert(NAME.to_owned(), pretty(&manifest));
        Self { files, manifest }
    }

    /// Adds the collector's signature of the manifest.
    ///
    /// # Errors
    ///
    /// When the key cannot sign.
    pub fn sign(&mut self, key: &Key) -> Result<(), log::NoteError> {
        let signature = signature::sign(key, &self.files[NAME])?;
        self.files.insert(signature::NAME.to_owned(), signature);
        Ok(())
    }

    /// Returns the snapshot's bytes.
    ///
    /// # Errors
    ///
    /// [`archive::Error::TooLarge`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, archive::Error> {
        archive::write(&self.files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect())
    }
}

/// Name of the built-in controls' text.
pub const BUILT_IN: &str = "catalogue/built_in.toml";
/// Name of the reference table's text.
pub const SUPPORT: &str = "catalogue/support.toml";
/// Name of the overlay's text.
pub const OVERLAY: &str = "catalogue/overlay.toml";
/// Name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// Name of the inclusion proofs.
pub const PROOFS: &str = "proofs.json";

/// Returns the name of the file of a log entry.
pub fn entry_name(index: u64) -> String {
    format!("evidence/{index}.entry")
}

/// Returns the index of the log entry in the file `name`.
pub fn entry_index(name: &str) -> Option<u64> {
    let index = name.strip_prefix("evidence/")?.strip_suffix(".entry")?.parse().ok()?;
    (entry_name(index) == name).then_some(index)
}

fn controls<'a>(catalogue: &'a Catalogue, parameters: &Parameters) -> Vec<&'a Control> {
    let in_scope = |control: &&Control| parameters.controls.as_ref().is_none_or(|ids| ids.contains(&control.id));
    catalogue.controls().filter(in_scope).collect()
}

fn counts(inputs: &Inputs<'_>, fleet: &Fleet, controls: &[&Control], verdicts: &[Vec<Verdict<'_>>]) -> Counts {
    let judged = fleet.hosts.iter().filter(|host| host.is_judged);
    let mut by_verdict = VerdictCounts::default();
    verdicts.iter().flatten().for_each(|verdict| by_verdict.count(verdict.judgement.verdict));
    let by_statement = verdicts.iter().flatten().filter(|verdict| verdict.judgement.is_by_statement());
    Counts {
        hosts: fleet.hosts.len() as u64,
        hosts_judged: judged.clone().count() as u64,
        hosts_revoked: fleet.hosts.iter().filter(|host| !host.is_judged).count() as u64,
        hosts_without_report: judged.filter(|host| host.last.is_none()).count() as u64,
        controls: controls.len() as u64,
        results: verdicts.iter().map(Vec::len).sum::<usize>() as u64,
        verdicts: by_verdict,
        passes_by_statement: by_statement.count() as u64,
        evidence: inputs.entries.len() as u64,
    }
}

fn manifest(inputs: &Inputs<'_>, fleet: &Fleet, counts: Counts) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        kind: "snapshot".to_owned(),
        parameters: inputs.parameters.clone(),
        made_by: inputs.made_by.clone(),
        collector: fleet.collector.as_ref().map(|collector| CollectorRef {
            name: collector.name.clone(),
            log_index: collector.index,
            ca_sha256: collector.ca_digest,
        }),
        log: LogRef {
            origin: inputs.log_key.split('+').next().unwrap_or_default().to_owned(),
            key: inputs.log_key.to_owned(),
            size: inputs.checkpoint.size,
            root: inputs.checkpoint.root,
            last_received_time: inputs.told.last_received,
            hosts_enrolled: inputs.told.hosts_enrolled,
        },
        catalogue: CatalogueRef {
            version: inputs.catalogue.version().to_owned(),
            digest: inputs.catalogue.digest(),
            log_index: fleet.catalogue_index,
            controls: inputs.catalogue.controls().count() as u64,
        },
        broken: broken(inputs.selection),
        counts,
        time_zone: "UTC".to_owned(),
        csv_rule: FORMULA_RULE.to_owned(),
        limits: LIMITS.iter().map(|limit| (*limit).to_owned()).collect(),
        files: BTreeMap::new(),
    }
}

fn broken(selection: &Selection) -> Vec<BrokenRef> {
    selection.broken().into_iter().map(|(agent_id, log_index)| BrokenRef { agent_id, log_index }).collect()
}

fn proofs(inputs: &Inputs<'_>) -> Vec<u8> {
    let proof = |index: &u64| {
        let hashes = inputs.proofs.get(index).map(Vec::as_slice).unwrap_or_default();
        json!({ "log_index": index, "hashes": hashes })
    };
    lines(inputs.entries.keys().map(proof))
}

fn keys(inputs: &Inputs<'_>, fleet: &Fleet) -> Vec<u8> {
    let agents: Vec<_> = fleet
        .hosts
        .iter()
        .map(|host| {
            json!({
                "agent_id": host.agent,
                "evidence_public_key": hex::encode(&host.enrolled.entry.evidence_public_key),
                "log_index": host.enrolled.index,
            })
        })
        .collect();
    pretty(&Sorted(&json!({
        "log": { "key": inputs.log_key, "form": "signed-note verifier key (C2SP): <name>+<key id, hex>+<base64 of 0x01 and the Ed25519 key>" },
        "agents": agents,
    })))
}

fn controls_json(controls: &[&Control], verdicts: &[Vec<Verdict<'_>>]) -> Vec<u8> {
    let value = |control: &&Control| {
        let mut counts = VerdictCounts::default();
        let of_control = |verdict: &&Verdict<'_>| verdict.control.id == control.id;
        verdicts.iter().flatten().filter(of_control).for_each(|verdict| counts.count(verdict.judgement.verdict));
        control_value(control, counts)
    };
    pretty(&Sorted(&Value::Array(controls.iter().map(value).collect())))
}

fn coverage_json(controls: &[&Control]) -> Vec<u8> {
    let requirement = |requirement: &Requirement| {
        let controls: Vec<_> = requirement
            .controls
            .iter()
            .map(|support| json!({ "control_id": support.control, "confidence": support.confidence }))
            .collect();
        json!({ "id": requirement.id, "controls": controls })
    };
    lines(coverage::of(&coverage::mapped(controls.iter().copied())).iter().map(|it| {
        json!({
            "framework": it.framework,
            "title": it.title,
            "list_complete": it.lacks.is_none(),
            "list_lacks": it.lacks,
            "supported_in_part": it.addressed().map(requirement).collect::<Vec<_>>(),
            "not_addressed": it.not_addressed().map(|requirement| &requirement.id).collect::<Vec<_>>(),
        })
    }))
}

fn control_value(control: &Control, counts: VerdictCounts) -> Value {
    let mut max_age: BTreeMap<&str, u64> =
        control.max_age.classes.iter().map(|(class, age)| (class.as_str(), age.as_secs())).collect();
    max_age.insert("*", control.max_age.default.as_secs());
    let mappings: Vec<_> = control
        .mappings
        .iter()
        .map(|it| json!({ "framework": it.framework, "requirement": it.requirement, "confidence": it.confidence }))
        .collect();
    json!({
        "control_id": control.id,
        "title": control.title,
        "statement": control.statement,
        "family": control.family,
        "severity": control.severity,
        "applies_to": control.applies_to,
        "condition": control.condition.source(),
        "offenders": control.offenders.as_ref().map(crate::control::Expression::source),
        "parameters": control.parameters,
        "subjects": control.subjects,
        "max_age_seconds": max_age,
        "statements": control.statements,
        "remediation_limit": control.remediation_limit,
        "hint": control.hint,
        "limits": control.limits,
        "supports": mappings,
        "hosts": counts.total(),
        "verdicts": counts,
    })
}

/// A value whose maps are written in order of their keys, whatever features the JSON library was built with.
struct Sorted<'a>(&'a Value);

impl serde::Serialize for Sorted<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                serializer.collect_map(map.iter().map(|(key, value)| (key, Sorted(value))).collect::<BTreeMap<_, _>>())
            }
            Value::Array(values) => serializer.collect_seq(values.iter().map(Sorted)),
            scalar => scalar.serialize(serializer),
        }
    }
}

/// Returns JSON for people.
fn pretty<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("these values are always written");
    text.push(b'\n');
    text
}

/// Returns a JSON array with one value a line.
pub(super) fn lines(values: impl Iterator<Item = Value>) -> Vec<u8> {
    let mut text = String::from("[");
    for (index, value) in values.enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(&serde_json::to_string(&Sorted(&value)).expect("a JSON value is always written"));
    }
    text.push_str("\n]\n");
    text.into_bytes()
}
