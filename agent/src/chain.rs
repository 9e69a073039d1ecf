//! The agent's chain: gives each body the next place, seals it, and puts it into the spool.
//!
//! It also keeps the facts that were reported, so that a restarted agent says again only what changed:
//!
//! ```text
//! spool/facts.bin   SHA-256 of the rest (32)  epoch (16)  sequence (8, big-endian)  encoded `Facts` with every subject
//! ```
//!
//! The file may be older than the chain's end; the reports after its sequence are still in the spool and bring it up to date. If the
//! result does not have the digest that the chain states, nothing of it is used and everything is reported again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Fact, Text},
    fact_set::{FactSet, Held},
    id::{AgentId, Digest, Epoch, ReportSeq},
    limits,
    report::{Body, Coverage, Facts, Report, SubjectFact},
    seal::{self, EvidenceKey},
    time::Timestamp,
    v1,
};
use prost::Message as _;

use crate::{
    moment::{self, Moment},
    report::{Draft, Observed, Reported},
    spool::{self, Backlog, Disk, Error, Files, Found, Place, Run, Spool, State, replace},
};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The agent's chain.
pub struct Chain {
    key: EvidenceKey,
    agent: AgentId,
    boot_id: [u8; 16],
    folder: PathBuf,
    spool: Spool,
}

/// A chain as it was found.
pub struct Opened {
    /// The chain.
    pub chain: Chain,
    /// What the spool held.
    pub found: Found,
    /// The facts that were reported; `None` when they are not known for sure.
    pub reported: Option<Reported>,
}

impl Chain {
    /// Opens the chain of `key` in `folder`.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read or written.
    pub fn open(folder: &Path, key: EvidenceKey, bound_bytes: u64) -> Result<Opened, Error> {
        Self::open_on(folder, key, bound_bytes, Box::new(Disk))
    }

    fn open_on(folder: &Path, key: EvidenceKey, bound_bytes: u64, files: Box<dyn Files>) -> Result<Opened, Error> {
        let (spool, found) = Spool::open(folder, bound_bytes, files, new_epoch)?;
        let agent = key.agent_id();
        let mut chain = Self { key, agent, boot_id: moment::boot_id(), folder: folder.to_owned(), spool };
        let reported = if found == Found::Whole { chain.load_reported() } else { None };
        Ok(Opened { chain, found, reported })
    }

    /// Returns whose chain it is.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// Returns the evidence key.
    pub fn key(&self) -> &EvidenceKey {
        &self.key
    }

    /// Returns the spool's state.
    pub fn state(&self) -> &State {
        self.spool.state()
    }

    /// Returns what waits in the spool.
    pub fn backlog(&self) -> Backlog {
        self.spool.backlog()
    }

    /// Returns when the oldest report that is not durable was sealed; `None` when there is none or it cannot be read.
    pub fn unsent_since(&mut self) -> Option<Timestamp> {
        let durable = self.state().durable.map(|place| place.seq);
        let records = self.spool.read_after(durable, 1).ok()?;
        spool::observed_of(&records.first()?.1)
    }

    /// Returns the boot in which the agent runs.
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// Returns the spool, to read from it and to acknowledge.
    pub fn spool(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// Returns whether reports with subjects of this many bytes would fit.
    pub fn has_room(&self, subject_bytes: usize) -> bool {
        // Each report costs at most a few hundred bytes beside its subjects.
        let reports = subject_bytes / limits::SUBJECT_BYTES_PER_REPORT + 16;
        self.spool.has_room((0..reports).map(|_| 1024).chain([subject_bytes]))
    }

    /// Seals `bodies` at the next places and takes them, all or none. One that no collector would ever take is left out.
    ///
    /// # Errors
    ///
    /// As [`Spool::take`]; nothing is taken then.
    pub fn append(&mut self, bodies: &[Body], now: Moment) -> Result<(), Error> {
        self.seal(bodies, now, |_| ())
    }

    /// Seals the last words of a run.
    ///
    /// # Errors
    ///
    /// As [`Spool::take`]; nothing is taken then.
    pub fn append_last(&mut self, bodies: &[Body], now: Moment) -> Result<(), Error> {
        self.seal(bodies, now, |run| run.stopped = true)
    }

    /// Seals a draft. When it changes facts, they are kept for the next start.
    ///
    /// # Errors
    ///
    /// As [`Spool::take`], and [`Error::Unfit`] when no collector would ever take one of its bodies; nothing is taken then.
    pub fn append_draft(&mut self, draft: &Draft, now: Moment) -> Result<(), Error> {
        let (fact_set, covered_until) = (draft.fact_set, draft.covered_until);
        self.seal_with(&draft.bodies, now, Err, |state| {
            if draft.changes_facts {
                state.fact_set = Some(fact_set);
            }
            state.run.covered_until = Some(covered_until);
        })
    }

    /// Keeps the facts that were reported up to the chain's end. Losing them costs a resync, so that failing is no error.
    pub fn keep_reported(&mut self, reported: &Reported) {
        let Some(sealed) = self.state().sealed else { return };
        let bytes = encode_reported(self.state().epoch, sealed.seq, reported);
        let path = self.folder.join("facts.bin");
        if let Err(error) = replace(&mut Disk, &path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "reported facts were not kept; the next start reports all of them");
        }
    }

    /// Ends the chain and begins another.
    ///
    /// # Errors
    ///
    /// When the new state cannot be written; the old chain goes on then.
    pub fn begin_epoch(&mut self) -> Result<(), Error> {
        self.spool.begin_epoch(new_epoch())
    }

    fn seal(&mut self, bodies: &[Body], now: Moment, change: impl FnOnce(&mut Run)) -> Result<(), Error> {
        let leave_out = |error: Error| {
            tracing::error!(%error, "something that happened is not reported");
            Ok(())
        };
        self.seal_with(bodies, now, leave_out, |state| change(&mut state.run))
    }

    fn seal_with(
        &mut self,
        bodies: &[Body],
        now: Moment,
        on_unfit: impl Fn(Error) -> Result<(), Error>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), Error> {
        let (mut seq, mut previous) = (self.state().next_seq(), self.state().sealed.map(|place| place.digest));
        let mut sealed = Vec::with_capacity(bodies.len());
        let mut last = None;
        for body in bodies {
            let encoded = self.report(seq, previous, body.clone(), now).encode();
            // A sealed report cannot be taken back: a collector that refuses it would stop the chain for good.
            if let Some(why) = why_unfit(&encoded) {
                on_unfit(Error::Unfit { why: format!("{body}: {why}") })?;
                continue;
            }
            let report = self.key.seal(encoded);
            let digest = seal::sealed_digest(&report);
            sealed.push(report.encode_to_vec());
            last = Some(Place { seq, digest });
            (seq, previous) = (seq.next(), Some(digest));
        }
        let Some(last) = last else { return Ok(()) };
        let boot_id = hex::encode(self.boot_id);
        self.spool.take(&sealed, last, |state| {
            state.run.stopped = false;
            VERSION.clone_into(&mut state.run.agent_version);
            state.run.boot_id = boot_id;
            change(state);
        })
    }

    fn report(&self, seq: ReportSeq, previous: Option<Digest>, body: Body, now: Moment) -> Report {
        let state = self.state();
        Report {
            agent: self.agent,
            epoch: state.epoch,
            seq,
            previous,
            observed: now.wall,
            boot_id: self.boot_id,
            since_boot_millis: u64::try_from(now.boot.as_millis()).unwrap_or(u64::MAX),
            agent_version: Text::new(VERSION),
            profile_revision: state.profile.as_ref().map_or(0, |profile| profile.revision),
            last_checkpoint: state.checkpoint.as_ref().map(|checkpoint| checkpoint.reference()),
            body,
        }
    }

    /// Returns the facts that were reported: those of the file, with the reports after it; `None` when they do not have the digest
    /// that the chain states.
    fn load_reported(&mut self) -> Option<Reported> {
        let epoch = self.state().epoch;
        let kept = std::fs::read(self.folder.join("facts.bin")).ok().and_then(|bytes| decode_reported(&bytes));
        let (mut after, mut set) = match kept {
            Some((of, seq, reported)) if of == epoch => (Some(seq), to_set(reported)),
            _ => (None, FactSet::default()),
        };
        loop {
            let records = self.spool.read_after(after, 256 * 1024).ok()?;
            let Some((last, _)) = records.last() else { break };
            after = Some(*last);
            for (_, bytes) in &records {
                let report = Report::decode(&seal::decode_sealed(bytes)?.report).ok()?;
                if let Body::Facts(facts) = report.body {
                    set.apply(&facts, &()).ok()?;
                }
            }
        }
        let is_known = !set.is_partial() && set.opaque().is_empty() && self.state().fact_set == Some(set.digest());
        is_known.then(|| from_set(&set))
    }
}

/// Returns the facts in `folder` that were reported, for those who look while the agent runs.
pub fn peek_reported(folder: &Path) -> Option<Reported> {
    decode_reported(&std::fs::read(folder.join("facts.bin")).ok()?).map(|(_, _, reported)| reported)
}

/// Returns every report in `folder` that can be read, oldest first, also while the agent runs.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn peek_reports(folder: &Path, mut each: impl FnMut(Report)) -> Result<(), Error> {
    spool::peek(folder, |_, bytes| {
        if let Some(report) = seal::decode_sealed(bytes).and_then(|sealed| Report::decode(&sealed.report).ok()) {
            each(report);
        }
    })
}

/// Returns why no collector would take this encoded report.
fn why_unfit(report: &[u8]) -> Option<String> {
    if report.len() > limits::REPORT_BYTES {
        return Some(format!("it has {} bytes, at most {} can be sent", report.len(), limits::REPORT_BYTES));
    }
    Report::decode(report).err().map(|error| error.to_string())
}

fn new_epoch() -> Epoch {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    Epoch::new(bytes)
}

fn to_set(reported: Reported) -> FactSet<()> {
    let held = |fact: Observed| Held { observed: fact.at, bytes: fact.bytes, origins: vec![()] };
    FactSet::from_facts(reported.into_iter().map(|(subject, fact)| (subject, held(fact))).collect())
}

fn from_set(set: &FactSet<()>) -> Reported {
    let observed = |held: &Held<()>| Observed { at: held.observed, bytes: held.bytes.clone() };
    set.facts().iter().map(|(subject, held)| (*subject, observed(held))).collect()
}

/// The wire form of a report's facts serves as the file's, so that there is one encoding of facts.
fn encode_reported(epoch: Epoch, seq: ReportSeq, reported: &Reported) -> Vec<u8> {
    let at = Timestamp::EPOCH;
    let nothing = Coverage { start: at, end: at, looks: Vec::new(), suspended_millis: 0, directive_ids: Vec::new() };
    let subject = |fact: &Observed| SubjectFact { observed: fact.at, fact: fact.bytes.clone() };
    let facts = Facts {
        subjects: reported.values().map(subject).collect(),
        part: None,
        fact_set_digest: crate::report::digest_of(reported),
        coverage: nothing,
        resync: true,
    };
    let wire = v1::Facts {
        subjects: facts
            .subjects
            .into_iter()
            .map(|subject| v1::SubjectFact { observed_time: Some(subject.observed.to_wire()), fact: subject.fact })
            .collect(),
        fact_set_digest: facts.fact_set_digest.as_bytes().to_vec(),
        ..v1::Facts::default()
    };
    let mut body = epoch.as_bytes().to_vec();
    body.extend_from_slice(&seq.number().to_be_bytes());
    wire.encode(&mut body).expect("a Vec takes every message");
    [Digest::of_bytes(&body).as_bytes().as_slice(), &body].concat()
}

fn decode_reported(bytes: &[u8]) -> Option<(Epoch, ReportSeq, Reported)> {
    let (digest, body) = bytes.split_first_chunk::<32>()?;
    if Digest::new(*digest) != Digest::of_bytes(body) {
        return None;
    }
    let (epoch, rest) = body.split_first_chunk::<16>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let facts = v1::Facts::decode(rest).ok()?;
    let mut reported = BTreeMap::new();
    for subject in facts.subjects {
        let at = Timestamp::from_wire(subject.observed_time.as_ref()?)?;
        let key = Fact::decode(&subject.fact).ok()?.subject();
        reported.insert(key, Observed { at, bytes: subject.fact });
    }
    Some((Epoch::new(*epoch), ReportSeq::new(u64::from_be_bytes(*seq))?, reported))
}

#[cfg(test)]
mod tests {
    use muster_proto::{fact::Cause, report::Probe, seal::EvidencePublicKey};

    use super::*;
    use crate::report::{Look, Reporter, digest_of, lifecycle, started};

    const BOUND: u64 = 4 << 20;

    fn key() -> (Vec<u8>, EvidencePublicKey) {
        let (key, pkcs8) = EvidenceKey::generate().unwrap();
        (pkcs8, EvidencePublicKey::new(&key.public_key()).unwrap())
    }

    fn open(folder: &Path, pkcs8: &[u8]) -> Opened {
        Chain::open(folder, EvidenceKey::from_pkcs8(pkcs8).unwrap(), BOUND).unwrap()
    }

    fn look(detail: &str) -> Look {
        let unknown = muster_proto::fact::Reading::unknown(Cause::Unsupported, detail);
        let now = Moment::now();
        Look { probe: Probe::Firewall, is_whole: true, facts: vec![Fact::Firewall(unknown)], started: now, ended: now }
    }

    fn say(chain: &mut Chain, reporter: &mut Reporter, detail: &str) {
        reporter.on_look(&look(detail));
        let draft = reporter.draft(Moment::now()).unwrap();
        chain.append_draft(&draft, Moment::now()).unwrap();
        reporter.commit(draft);
    }

    #[test]
    fn every_report_verifies_and_names_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, public) = key();
        for _ in 0..3 {
            let mut chain = open(folder.path(), &pkcs8).chain;
            let event = lifecycle(muster_proto::report::LifecycleKind::Started, "x");
            chain.append(&[event.clone(), event], Moment::now()).unwrap();
        }
        let mut previous = None;
        let mut count = 0;
        spool::peek(folder.path(), |seq, bytes| {
            let sealed = seal::decode_sealed(bytes).unwrap();
            public.verify_sealed(&sealed).unwrap();
            let report = Report::decode(&sealed.report).unwrap();
            count += 1;
            assert_eq!((report.seq, report.seq.number(), report.previous), (seq, count, previous));
            previous = Some(seal::sealed_digest(&sealed));
        })
        .unwrap();
        assert_eq!(count, 6);
    }

    #[test]
    fn the_reported_facts_come_back_at_the_next_start_wherever_it_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, _) = key();
        let mut opened = open(folder.path(), &pkcs8);
        assert_eq!((opened.found, opened.reported.is_none()), (Found::New, true));
        let mut reporter = Reporter::new(None, Moment::now());
        for (detail, is_kept) in [("one", false), ("two", true), ("three", false), ("four", false)] {
            say(&mut opened.chain, &mut reporter, detail);
            if is_kept {
                opened.chain.keep_reported(reporter.reported());
            }
            // As if killed here.
            let reported = open(folder.path(), &pkcs8).reported.unwrap();
            assert_eq!(digest_of(&reported), digest_of(reporter.reported()), "{detail}");
            assert_eq!(reported, *reporter.reported());
        }
    }

    #[test]
    fn a_time_without_room_ends_with_all_that_is_known_or_not_yet() {
        let folder = tempfile::tempdir().unwrap();
        let key = EvidenceKey::generate().unwrap().0;
        let left = std::sync::Arc::new(std::sync::Mutex::new(200_000));
        let disk = Box::new(spool::tests::Nearly(left.clone()));
        let mut chain = Chain::open_on(folder.path(), key, BOUND, disk).unwrap().chain;
        let mut reporter = Reporter::new(None, Moment::now());
        say(&mut chain, &mut reporter, "one");
        reporter.hold(Moment::now());
        reporter.on_look(&look(&"x".repeat(400)));
        // Room for a gap, and not for the facts after it.
        let sealed = chain.state().sealed;
        for room in [0, 400, 1_500] {
            *left.lock().unwrap() = room;
            let draft = reporter.draft_release(Moment::now()).unwrap();
            let error = chain.append_draft(&draft, Moment::now()).unwrap_err();
            assert!(matches!(error, Error::DiskFull { .. }), "{room}: {error}");
            assert_eq!(chain.state().sealed, sealed);
        }
        *left.lock().unwrap() = 100_000;
        let draft = reporter.draft_release(Moment::now()).unwrap();
        chain.append_draft(&draft, Moment::now()).unwrap();
        reporter.commit(draft);
        let mut kinds = Vec::new();
        peek_reports(folder.path(), |report| kinds.push(report.body.to_string())).unwrap();
        assert_eq!(kinds, ["facts", "gap", "facts"]);
    }

    #[test]
    fn damage_is_told_since_the_last_report_before_it_that_is_here_or_durable() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, _) = key();
        let mut chain = open(folder.path(), &pkcs8).chain;
        let start = Moment::now();
        let at = |minute: u64| Moment { wall: start.wall.plus(std::time::Duration::from_secs(60 * minute)), ..start };
        for minute in 1..=5 {
            let event = lifecycle(muster_proto::report::LifecycleKind::Started, "x");
            chain.append(&[event], at(minute)).unwrap();
        }
        let segment = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let segment = segment.into_iter().find(|path| path.extension().is_some_and(|e| e == "seg")).unwrap();
        let whole = std::fs::read(&segment).unwrap();
        let mut places = Vec::new();
        spool::peek(folder.path(), |seq, bytes| {
            places.push(Place { seq, digest: seal::sealed_digest(&seal::decode_sealed(bytes).unwrap()) });
        })
        .unwrap();
        let middle_of = |report: usize| 24 + (whole.len() - 24) / 5 * report - 50;
        chain.spool().acknowledge(places[2], |_| ()).unwrap();
        assert_eq!(chain.state().durable_time, Some(at(3).wall));
        for (damaged, lost, since) in [(vec![5], 5, 4), (vec![4], 4, 3), (vec![3, 4], 4, 3)] {
            let mut bytes = whole.clone();
            damaged.into_iter().for_each(|report| bytes[middle_of(report)] ^= 1);
            std::fs::write(&segment, bytes).unwrap();
            let Found::Damaged { lost: found, since: at_least } = open(folder.path(), &pkcs8).found else { panic!() };
            assert_eq!((found.first.number(), at_least), (lost, Some(at(since).wall)));
        }
    }

    #[test]
    fn nothing_is_sealed_that_no_collector_would_take() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, _) = key();
        let mut chain = open(folder.path(), &pkcs8).chain;
        let event = lifecycle(muster_proto::report::LifecycleKind::Started, "x");
        let mut long = event.clone();
        if let Body::Lifecycle(event) = &mut long {
            event.detail = Text::new(&"x".repeat(limits::DETAIL_BYTES + 1));
        }
        // What surrounds it is sealed, and the chain has no hole.
        chain.append(&[event.clone(), long, event], Moment::now()).unwrap();
        assert_eq!(chain.state().sealed.unwrap().seq.number(), 2);

        let mut reporter = Reporter::new(None, Moment::now());
        reporter.on_look(&look("one"));
        let whole = reporter.draft(Moment::now()).unwrap();
        for damage in ["directives", "bytes"] {
            let mut draft = reporter.draft(Moment::now()).unwrap();
            let Body::Facts(facts) = &mut draft.bodies[0] else { panic!() };
            match damage {
                "directives" => facts.coverage.directive_ids = (0..=limits::DIRECTIVE_IDS as u64).collect(),
                _ => facts.subjects[0].fact = vec![0; limits::REPORT_BYTES],
            }
            let error = chain.append_draft(&draft, Moment::now()).unwrap_err();
            assert!(matches!(&error, Error::Unfit { .. }), "{error}");
        }
        chain.append_draft(&whole, Moment::now()).unwrap();
        let mut sealed = Vec::new();
        peek_reports(folder.path(), |report| sealed.push(report.seq.number())).unwrap();
        assert_eq!(sealed, [1, 2, 3]);
    }

    #[test]
    fn facts_that_are_not_known_for_sure_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, _) = key();
        let mut chain = open(folder.path(), &pkcs8).chain;
        let mut reporter = Reporter::new(None, Moment::now());
        say(&mut chain, &mut reporter, "one");
        chain.keep_reported(reporter.reported());
        let last = chain.state().sealed.unwrap();
        let file = folder.path().join("facts.bin");
        let mut bytes = std::fs::read(&file).unwrap();
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(open(folder.path(), &pkcs8).reported.is_some(), "the report itself is still there");
        // Without the report, a damaged file leaves nothing to go by.
        chain.spool().acknowledge(last, |_| ()).unwrap();
        let segment = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        for path in segment.filter(|path| path.extension().is_some_and(|extension| extension == "seg")) {
            std::fs::remove_file(path).unwrap();
        }
        let opened = open(folder.path(), &pkcs8);
        assert_eq!((opened.found, opened.reported), (Found::Whole, None));
    }

    #[test]
    fn a_run_is_remembered_as_stopped_only_after_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (pkcs8, _) = key();
        let mut chain = open(folder.path(), &pkcs8).chain;
        let last = crate::report::LastRun {
            covered_until: None,
            stopped: false,
            agent_version: String::new(),
            is_rebooted: false,
        };
        let bodies = started(&last, VERSION, Moment::now());
        chain.append(&bodies, Moment::now()).unwrap();
        assert!(!open(folder.path(), &pkcs8).chain.state().run.stopped);
        chain.append_last(&bodies, Moment::now()).unwrap();
        assert!(open(folder.path(), &pkcs8).chain.state().run.stopped);
        chain.append(&bodies, Moment::now()).unwrap();
        assert!(!open(folder.path(), &pkcs8).chain.state().run.stopped);
    }
}
