//! What the collector's words mean for the chain. It decides; it sends nothing.

use std::collections::VecDeque;

use muster_proto::{
    id::{Digest, ReportSeq},
    limits, seal,
    time::Timestamp,
    v1,
};

use super::Error;
use crate::{
    chain::{Chain, VERSION},
    checkpoint::{self, Checkpoint, LogKey, check_growth, check_size},
    spool::{self, Place},
};

/// Version of the contract that this agent speaks.
const CONTRACT_VERSION: u32 = 1;

/// Returns the first step of a stream.
pub fn hello(chain: &Chain, now: Timestamp) -> v1::Hello {
    let state = chain.state();
    v1::Hello {
        contract_version: CONTRACT_VERSION,
        agent_version: VERSION.to_owned(),
        epoch: state.epoch.as_bytes().to_vec(),
        next_sequence: state.next_seq().number(),
        head_digest: state.sealed.map(|place| place.digest.as_bytes().to_vec()).unwrap_or_default(),
        last_session_nonce: hex::decode(&state.session_nonce).unwrap_or_default(),
        last_checkpoint: state.checkpoint.as_ref().map(|checkpoint| checkpoint.reference().to_wire()),
        proven_checkpoint: state.proven.as_ref().map(|checkpoint| checkpoint.reference().to_wire()),
        host_time: Some(now.to_wire()),
    }
}

/// What a Welcome means.
#[derive(Debug, Eq, PartialEq)]
pub enum Welcomed {
    /// The chain goes on after `durable`.
    GoOn {
        /// The last place that is durable.
        durable: Option<Place>,
        /// The newest checkpoint, verified, and proved to continue every one that the agent holds.
        checkpoint: Option<Checkpoint>,
    },
    /// The chain cannot go on: the collector has what this agent has not.
    BeginEpoch {
        /// Why, in words.
        why: String,
    },
}

/// Judges a Welcome.
///
/// # Errors
///
/// [`Error::Distrust`] when the log does not continue what the agent has seen, or lost what it acknowledged.
pub fn judge_welcome(chain: &mut Chain, key: &LogKey, welcome: &v1::Welcome) -> Result<Welcomed, Error> {
    if welcome.session_nonce.len() != 16 {
        return Err(Error::Protocol("the session nonce has not 16 bytes"));
    }
    let state = chain.state().clone();
    let checkpoint = match (&state.checkpoint, welcome.checkpoint.as_slice()) {
        (None, []) => None,
        (Some(held), []) if held.size == 0 => None,
        (Some(held), []) => {
            let source = checkpoint::Error::Shrunk { from: held.size, to: 0 };
            return Err(Error::Contradicted { held: Box::new(held.clone()), shown: None, source });
        }
        (held, note) => {
            let new = key.verify(note).map_err(|error| Error::Distrust(error.to_string()))?;
            // The newest alone would be too little: a log that was swapped within a stream continues what it showed there itself.
            for (old, proof) in [(held, &welcome.consistency_proof), (&state.proven, &welcome.proven_consistency_proof)]
            {
                if let Some(old) = old {
                    check_growth(old, &new, proof).map_err(|source| contradicted(old, &new, source))?;
                }
            }
            Some(new)
        }
    };
    let through = welcome.durable_through_sequence;
    let acknowledged = state.durable.map_or(0, |place| place.seq.number());
    if through < acknowledged {
        return Err(Error::Distrust(format!(
            "it acknowledged {acknowledged} reports of this agent and now has {through}: was it restored from an old copy? \
             Restore the newest one"
        )));
    }
    let sealed = state.sealed.map_or(0, |place| place.seq.number());
    if through > sealed {
        let why = format!(
            "collector has {through} reports of this chain, this host {sealed}: was the host restored from an old copy?"
        );
        return Ok(Welcomed::BeginEpoch { why });
    }
    let durable = match ReportSeq::new(through) {
        None => None,
        Some(seq) => {
            let digest = Digest::from_slice(&welcome.durable_digest)
                .ok_or(Error::Protocol("the digest of the durable report has not 32 bytes"))?;
            let own = digest_at(chain, seq)?;
            if own.is_some_and(|own| own != digest) {
                let why =
                    format!("collector has another report at place {seq}: does a copy of this host run elsewhere?");
                return Ok(Welcomed::BeginEpoch { why });
            }
            Some(Place { seq, digest })
        }
    };
    if !follows(chain, durable)? {
        let why = format!("reports after place {through} were lost on this host");
        return Ok(Welcomed::BeginEpoch { why });
    }
    Ok(Welcomed::GoOn { durable, checkpoint })
}

/// Judges the checkpoint of an acknowledgement.
///
/// # Errors
///
/// [`Error::Distrust`] when it is not signed by the log, or the log shrank.
pub fn judge_checkpoint(chain: &Chain, key: &LogKey, note: &[u8]) -> Result<Checkpoint, Error> {
    let new = key.verify(note).map_err(|error| Error::Distrust(error.to_string()))?;
    if let Some(held) = &chain.state().checkpoint {
        check_size(held, &new).map_err(|source| contradicted(held, &new, source))?;
    }
    Ok(new)
}

fn contradicted(held: &Checkpoint, shown: &Checkpoint, source: checkpoint::Error) -> Error {
    Error::Contradicted { held: Box::new(held.clone()), shown: Some(Box::new(shown.clone())), source }
}

/// Returns the digest of this agent's report at `seq`, or `None` when it has it no more.
fn digest_at(chain: &mut Chain, seq: ReportSeq) -> Result<Option<Digest>, Error> {
    let state = chain.state();
    if let Some(place) = [state.sealed, state.durable].into_iter().flatten().find(|place| place.seq == seq) {
        return Ok(Some(place.digest));
    }
    let before = ReportSeq::new(seq.number() - 1);
    let records = chain.spool().read_after(before, 1)?;
    let record = records.first().filter(|(found, _)| *found == seq);
    Ok(record.and_then(|(_, bytes)| seal::decode_sealed(bytes)).map(|sealed| seal::sealed_digest(&sealed)))
}

/// Returns whether the next report in the spool goes on from `durable`, or declares all places up to its own as lost.
fn follows(chain: &mut Chain, durable: Option<Place>) -> Result<bool, Error> {
    let expected = durable.map_or(ReportSeq::FIRST, |place| place.seq.next());
    if expected == chain.state().next_seq() {
        return Ok(true);
    }
    let records = chain.spool().read_after(durable.map(|place| place.seq), 1)?;
    Ok(records.first().is_some_and(|(seq, bytes)| {
        *seq == expected || spool::lost_of(bytes).is_some_and(|lost| lost.first == expected && lost.last.next() == *seq)
    }))
}

/// Reports that are under way.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    /// Sent and not yet durable, in order.
    under_way: VecDeque<Place>,
    /// The last that was sent, or that was durable at the start.
    last: Option<ReportSeq>,
}

impl Window {
    /// Returns a window that begins after `durable`.
    pub fn new(durable: Option<Place>, offered: Option<v1::IngestLimits>) -> Self {
        let limit =
            offered.map_or(limits::WINDOW_REPORTS, |offered| offered.window_reports).clamp(1, limits::WINDOW_REPORTS);
        Self { limit: limit as usize, under_way: VecDeque::new(), last: durable.map(|place| place.seq) }
    }

    /// Returns how many more may be sent.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.under_way.len())
    }

    /// Returns the last that was sent.
    pub fn last(&self) -> Option<ReportSeq> {
        self.last
    }

    /// Takes note that a report was sent.
    pub fn sent(&mut self, place: Place) {
        self.under_way.push_back(place);
        self.last = Some(place.seq);
    }

    /// Takes note that everything up to `through` is durable; returns that place, or `None` when nothing new is.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] when it was never sent.
    pub fn durable(&mut self, through: u64) -> Result<Option<Place>, Error> {
        if self.last.is_none_or(|last| through > last.number()) {
            return Err(Error::Protocol("it acknowledged a report that was not sent"));
        }
        let mut newest = None;
        while self.under_way.front().is_some_and(|place| place.seq.number() <= through) {
            newest = self.under_way.pop_front();
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{report::LifecycleKind, seal::EvidenceKey};

    use super::*;
    use crate::{checkpoint::testing::TestLog, moment::Moment, report::lifecycle};

    struct Fixture {
        folder: tempfile::TempDir,
        pkcs8: Vec<u8>,
        chain: Chain,
        log: TestLog,
    }

    fn open(folder: &std::path::Path, pkcs8: &[u8]) -> Chain {
        Chain::open(folder, EvidenceKey::from_pkcs8(pkcs8).unwrap(), 1 << 20).unwrap().chain
    }

    impl Fixture {
        fn new(reports: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (_, pkcs8) = EvidenceKey::generate().unwrap();
            let mut fixture = Self { chain: open(folder.path(), &pkcs8), folder, pkcs8, log: TestLog::new("c1", 7) };
            fixture.say(reports);
            fixture
        }

        fn say(&mut self, reports: u64) {
            for number in 0..reports {
                let body = lifecycle(LifecycleKind::Started, &format!("{number}"));
                self.chain.append(&[body], Moment::now()).unwrap();
            }
        }

        fn digest(&mut self, seq: u64) -> Digest {
            digest_at(&mut self.chain, ReportSeq::new(seq).unwrap()).unwrap().unwrap()
        }

        fn welcome(&mut self, durable: u64) -> v1::Welcome {
            let digest = if durable == 0 { Vec::new() } else { self.digest(durable).as_bytes().to_vec() };
            v1::Welcome {
                session_nonce: vec![5; 16],
                durable_through_sequence: durable,
                durable_digest: digest,
                checkpoint: if self.log.size() == 0 { Vec::new() } else { self.log.note() },
                ..v1::Welcome::default()
            }
        }

        fn judge(&mut self, welcome: &v1::Welcome) -> Result<Welcomed, Error> {
            let key = LogKey::new(self.log.key()).unwrap();
            judge_welcome(&mut self.chain, &key, welcome)
        }

        fn acknowledge(&mut self, seq: u64) {
            let place = Place { seq: ReportSeq::new(seq).unwrap(), digest: self.digest(seq) };
            self.log.push(b"entry");
            let held = LogKey::new(self.log.key()).unwrap().verify(&self.log.note()).unwrap();
            let change = |state: &mut spool::State| {
                state.proven.get_or_insert(held.clone());
                state.checkpoint = Some(held);
            };
            self.chain.spool().acknowledge(place, change).unwrap();
        }
    }

    fn begins_epoch(result: Result<Welcomed, Error>, part: &str) {
        let Ok(Welcomed::BeginEpoch { why }) = result else { panic!("{result:?}") };
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn the_chain_goes_on_after_what_is_durable() {
        let mut fixture = Fixture::new(3);
        for durable in 0..=3 {
            let welcome = fixture.welcome(durable);
            let Ok(Welcomed::GoOn { durable: place, checkpoint: None }) = fixture.judge(&welcome) else { panic!() };
            assert_eq!(place.map_or(0, |place| place.seq.number()), durable);
        }
    }

    #[test]
    fn a_restored_or_copied_host_begins_another_epoch() {
        let mut fixture = Fixture::new(3);
        let mut welcome = fixture.welcome(3);
        welcome.durable_through_sequence = 4;
        begins_epoch(fixture.judge(&welcome), "restored");
        let mut welcome = fixture.welcome(2);
        welcome.durable_digest[0] ^= 1;
        begins_epoch(fixture.judge(&welcome), "copy of this host");
    }

    #[test]
    fn a_log_that_does_not_continue_is_not_trusted_and_nothing_is_deleted() {
        let mut fixture = Fixture::new(3);
        fixture.log.push(b"1");
        fixture.acknowledge(2);
        fixture.log.push(b"3");
        let mut welcome = fixture.welcome(3);
        assert!(matches!(fixture.judge(&welcome), Err(Error::Contradicted { .. })), "no proof");
        welcome.consistency_proof = fixture.log.proof_from(2);
        assert!(matches!(fixture.judge(&welcome), Err(Error::Contradicted { .. })), "half of the proof");
        welcome.proven_consistency_proof = fixture.log.proof_from(2);
        assert!(matches!(fixture.judge(&welcome), Ok(Welcomed::GoOn { .. })));
        welcome.checkpoint.clear();
        assert!(matches!(fixture.judge(&welcome), Err(Error::Contradicted { shown: None, .. })), "an empty log");

        let mut behind = fixture.welcome(3);
        behind.consistency_proof = fixture.log.proof_from(2);
        behind.proven_consistency_proof = fixture.log.proof_from(2);
        behind.durable_through_sequence = 1;
        let error = fixture.judge(&behind).unwrap_err().to_string();
        assert!(error.contains("acknowledged 2 reports"), "{error}");
        assert_eq!(fixture.chain.spool().read_after(None, usize::MAX).unwrap().len(), 3);
    }

    #[test]
    fn a_log_that_was_swapped_within_a_stream_is_noticed_at_the_next_welcome() {
        let mut fixture = Fixture::new(3);
        (0..4).for_each(|_| fixture.log.push(b"a"));
        fixture.acknowledge(1);
        // Another history under the same key, which the next acknowledgement shows without a proof.
        fixture.log = TestLog::new("c1", 7);
        (0..8).for_each(|_| fixture.log.push(b"b"));
        fixture.acknowledge(2);
        fixture.log.push(b"b");
        let mut welcome = fixture.welcome(2);
        welcome.consistency_proof = fixture.log.proof_from(9);
        welcome.proven_consistency_proof = fixture.log.proof_from(5);
        let Err(Error::Contradicted { held, shown, .. }) = fixture.judge(&welcome) else { panic!() };
        assert_eq!((held.size, shown.unwrap().size), (5, 10));
    }

    #[test]
    fn lost_places_are_bridged_by_their_gap_or_by_another_epoch() {
        let mut fixture = Fixture::new(3);
        let two = fixture.digest(2);
        let mut segment = std::fs::read_dir(fixture.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let segment = segment.find(|path| path.extension().is_some_and(|e| e == "seg")).unwrap();
        // Damages the second report.
        let len = std::fs::metadata(&segment).unwrap().len();
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[len as usize / 2] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let opened =
            Chain::open(fixture.folder.path(), EvidenceKey::from_pkcs8(&fixture.pkcs8).unwrap(), 1 << 20).unwrap();
        let spool::Found::Damaged { lost, .. } = opened.found else { panic!("{:?}", opened.found) };
        fixture.chain = opened.chain;
        let now = Moment::now();
        fixture.chain.append(&[crate::report::spool_damaged(lost, None, now)], now).unwrap();
        fixture.say(1);

        let welcome = fixture.welcome(1);
        assert!(matches!(fixture.judge(&welcome), Ok(Welcomed::GoOn { .. })), "the gap follows place 1");
        let mut further = fixture.welcome(1);
        (further.durable_through_sequence, further.durable_digest) = (2, two.as_bytes().to_vec());
        begins_epoch(fixture.judge(&further), "lost on this host");
    }

    #[test]
    fn acknowledgements_are_taken_in_order_and_only_for_what_was_sent() {
        let place =
            |number: u64| Place { seq: ReportSeq::new(number).unwrap(), digest: Digest::new([number as u8; 32]) };
        let mut window =
            Window::new(Some(place(4)), Some(v1::IngestLimits { window_reports: 3, report_bytes: 61_440 }));
        for number in 5..=7 {
            assert_eq!(window.room(), 3 - (number as usize - 5));
            window.sent(place(number));
        }
        assert_eq!(window.durable(3).unwrap(), None);
        assert_eq!(window.durable(6).unwrap(), Some(place(6)));
        assert_eq!(window.durable(6).unwrap(), None);
        assert_eq!(window.room(), 2);
        assert!(window.durable(8).is_err());
    }
}
