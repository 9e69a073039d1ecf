//! `README.txt`: how to verify a snapshot, with and without Muster.

use super::manifest::Manifest;

/// Returns the text for a manifest whose list of files is still to come.
pub fn text(manifest: &Manifest) -> String {
    let collector = manifest.collector.as_ref().map_or("(unnamed)", |collector| collector.name.as_str());
    let counts = &manifest.counts;
    format!(
        "Muster snapshot of one instant
==============================

collector   {collector}
as of       {as_of} (UTC)
log         {log_size} entries, root {root}
catalogue   {version}, digest {digest}
hosts       {hosts} of {enrolled} enrolled{hosts_scope}: {judged} judged, {revoked} revoked
controls    {controls} of {all_controls}{controls_scope}
verdicts    {results}: {pass} pass, {fail} fail, {unknown} unknown, {no_data} no data, {not_applicable} not applicable, {excepted} excepted

{BODY}",
        as_of = manifest.parameters.as_of,
        log_size = manifest.log.size,
        root = manifest.log.root,
        version = manifest.catalogue.version,
        digest = manifest.catalogue.digest,
        hosts = counts.hosts,
        enrolled = manifest.log.hosts_enrolled,
        hosts_scope = scope(manifest.parameters.hosts.is_some()),
        controls = counts.controls,
        all_controls = manifest.catalogue.controls,
        controls_scope = scope(manifest.parameters.controls.is_some()),
        judged = counts.hosts_judged,
        revoked = counts.hosts_revoked,
        results = counts.results,
        pass = counts.verdicts.pass,
        fail = counts.verdicts.fail,
        unknown = counts.verdicts.unknown,
        no_data = counts.verdicts.no_data,
        not_applicable = counts.verdicts.not_applicable,
        excepted = counts.verdicts.excepted,
    )
}

fn scope(is_chosen: bool) -> &'static str {
    if is_chosen { ", chosen by whoever asked" } else { "" }
}

const BODY: &str = r#"Files
-----
manifest.json     parameters, counts, limits, and the SHA-256 and size of every other file
manifest.sig      the collector's signature of manifest.json, and so of every byte
hosts.json        each host: where it stands, last report, facts, looks (hosts.csv: the same for spreadsheets)
results.json      each host and control: verdict, reason, times, evidence (results.csv: the same for spreadsheets)
controls.json     the controls that judged; catalogue/*.toml are the exact texts that define them
coverage.json     each framework: requirements that these controls support in part, and those that they do not address
evidence/N.entry  the exact entry N of the collector's log, a protobuf message muster.v1.LogEntry
proofs.json       for each entry, the hashes that prove that the log holds it
checkpoint        size and root of the log, signed by the collector
keys.json         the keys that verify the signatures

JSON is authoritative; manifest.json states how CSV cells are kept from being formulas.

Verify with Muster
------------------
    musterctl verify SNAPSHOT.zip --log-key 'KEY'

It needs no network and no collector. It checks every byte, every signature and every proof, judges every control again, and
says what is proven, what is only claimed and what is unknown. Get KEY, the key of the collector's log, from somewhere else than
this file: from the operator in writing, from an earlier snapshot, or from a host (its agent got it when it enrolled). The file
names a key too, but whoever forges a file would put a key of their own there.

Verify without Muster
---------------------
1. Files. Unpack, then compare each file's `sha256sum` with "files" in manifest.json. The zip holds nothing else: its files are
   stored, without comments or extra fields.

2. Signature. `manifest.sig` is a signed note (c2sp.org/signed-note) by the log's key over two lines, each with its line end:
   "muster/snapshot/v1", and "sha256:" with the SHA-256 of manifest.json in hex. Without it anybody could leave out a host or a
   report and count again.

3. Checkpoint. `checkpoint` is a signed note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint): origin, size and base64 root, an
   empty line, and a line of an em dash, the origin, and base64 of a 4-byte key id and a 64-byte Ed25519 signature over the lines
   before the empty line, each with its line end.

4. Entries. The leaf hash of an entry is SHA-256(0x00 || entry). Each proof in proofs.json is an audit path of RFC 6962 section
   2.1.1: with it the leaf hash leads to the root of the checkpoint. Interior nodes are SHA-256(0x01 || left || right).

5. Hosts. An agent's id is the first 16 bytes of SHA-256 over its Ed25519 evidence key. The enrolment entry binds both. `proof` in
   it is the key's signature over "muster/enroll/v1", a zero byte and `csr_digest`.

6. Reports. A report entry holds a SealedReport of the exact bytes `report` and `signature`. The signature is Ed25519 by the
   evidence key over "muster/report/v1", a zero byte and `report`. Rule: RFC 8032 section 5.1.7 without the cofactor, S below the
   group order, the key canonical and not of small order. `previous_digest` of a report is SHA-256 over "muster/sealed/v1", a zero
   byte, `report` and `signature` of the one before it in the same epoch.

7. Facts. A host's facts are the newest of each subject in its reports. Their digest must be `fact_set_digest` of its newest report
   that states one: SHA-256 over "muster/fact-set/v1", a zero byte and, for each fact in ascending order of the number of its field
   in muster.v1.Fact, that number (4 bytes, big-endian) and SHA-256 of the encoded fact. So no fact was left out and none is from
   another time. Hosts under "broken" in manifest.json are judged unknown.

8. Controls. The catalogue's digest is SHA-256 over "muster/catalogue/v1", a zero byte, and built_in.toml, support.toml and
   overlay.toml with a zero byte between them. The log holds it in the entry that manifest.json names. Each condition is CEL
   (cel.dev) over the facts. Where hidden readings alone leave one open, a [[statement]] of overlay.toml about the host makes
   `encrypted` true in their place, from its first instant to before its last; the reason then says so.

9. Custody. Every export is an act in the same log (SnapshotExported) with the SHA-256 of the whole zip file: ask the collector
   with `musterctl log proof INDEX`.

What this shows and what it does not is under "limits" in manifest.json.
"#;
