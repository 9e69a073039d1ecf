//! One agent's chain as the collector knows it: durable heads, and what was admitted since. Pure.

use std::collections::VecDeque;

use muster_proto::{
    id::{Digest, Epoch, ReportSeq},
    report::Lost,
};

use super::admit::Checked;

/// Epochs of one agent, at most. An agent draws one when it loses its state, so a host that reaches this is broken or lies.
pub(crate) const EPOCHS: usize = 256;

/// The last durable report of an epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Its place.
    pub seq: ReportSeq,
    /// Digest of the sealed report.
    pub digest: Digest,
    /// Its index in the log.
    pub index: u64,
}

/// A report that was admitted and is not durable yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct InFlight {
    stream: u64,
    epoch: Epoch,
    seq: ReportSeq,
    digest: Digest,
    bytes: u32,
}

/// Where a report falls in its agent's chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is the next one.
    Next,
    /// The very same report is durable or on its way.
    Known {
        /// Whether it is durable.
        is_durable: bool,
    },
    /// A durable report stands there, before the head; only the log knows which.
    Before,
    /// Another report stands there, or the chain has gone on without it.
    Fork(Standing),
    /// It is not the next one; this is.
    OutOfOrder(ReportSeq),
    /// It is at the next place, but does not name the report before it.
    BrokenChain(ReportSeq),
    /// It cannot begin an epoch.
    NoStart,
    /// The agent began too many epochs.
    TooManyEpochs,
}

/// The report that a fork contradicts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is durable, at this index of the log.
    Durable(u64),
    /// It is on its way.
    InFlight(Epoch, ReportSeq),
}

/// One agent's chain.
#[derive(Debug, Default)]
pub struct Chain {
    /// Durable heads, the newest epoch last.
    heads: Vec<(Epoch, Head)>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    /// How many of `in_flight` have their place in the log's next checkpoint.
    sequenced: usize,
    /// How many at the end of `in_flight` the inbox does not have yet.
    unpushed: usize,
    /// The stream that may admit.
    owner: u64,
    /// Reports of streams before this one are void.
    floor: u64,
}

impl Chain {
    /// Returns a chain with these durable heads, in order of their index.
    pub(crate) fn with_head(&mut self, epoch: Epoch, head: Head) {
        self.heads.retain(|(known, _)| *known != epoch);
        let at = self.heads.partition_point(|(_, known)| known.index < head.index);
        self.heads.insert(at, (epoch, head));
    }

    /// Returns the durable head of `epoch`.
    pub(crate) fn durable(&self, epoch: Epoch) -> Option<Head> {
        self.heads.iter().rev().find(|(known, _)| *known == epoch).map(|(_, head)| *head)
    }

    /// Returns whether any report of `epoch` was admitted.
    pub(crate) fn knows(&self, epoch: Epoch) -> bool {
        self.durable(epoch).is_some() || self.in_flight.iter().any(|report| report.epoch == epoch)
    }

    /// Returns how many reports are on their way, and their bytes.
    pub(crate) fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len(), self.in_flight_bytes)
    }

    /// Makes `stream` the only one that may admit. What the stream before had not handed to the inbox is forgotten.
    pub(crate) fn take_over(&mut self, stream: u64) {
        self.forget_unpushed();
        self.owner = stream;
    }

    /// Returns whether `stream` may admit.
    pub(crate) fn is_owner(&self, stream: u64) -> bool {
        self.owner == stream
    }

    /// Forgets what `stream` admitted and did not hand to the inbox, when it ends.
    pub(crate) fn leave(&mut self, stream: u64) {
        if self.is_owner(stream) {
            self.forget_unpushed();
        }
    }

    /// Returns the place in `epoch` that would be taken next.
    pub(crate) fn expected(&self, epoch: Epoch) -> ReportSeq {
        match self.tip() {
            Some((newest, tip)) if newest == epoch => tip.seq.next(),
            _ => self.durable(epoch).map_or(ReportSeq::FIRST, |head| head.seq.next()),
        }
    }

    /// Says where `report` falls.
    pub(crate) fn place(&self, report: &Checked) -> Place {
        let Some((epoch, tip)) = self.tip() else { return self.start(report) };
        if report.epoch == epoch {
            if report.seq <= tip.seq { self.past(report, tip) } else { self.next(report, tip) }
        } else if self.knows(report.epoch) {
            self.resumed(report)
        } else {
            self.start(report)
        }
    }

    /// Adds a report that is [`Place::Next`].
    pub(crate) fn admit(&mut self, stream: u64, report: &Checked) {
        let Checked { epoch, seq, digest, bytes, .. } = *report;
        self.in_flight.push_back(InFlight { stream, epoch, seq, digest, bytes });
        self.in_flight_bytes += u64::from(bytes);
        self.unpushed += 1;
    }

    /// Hears that the inbox has everything that was admitted.
    pub(crate) fn pushed(&mut self) {
        self.unpushed = 0;
    }

    /// Returns whether a report that comes out of the inbox is the next for the log. If not, something before it was lost:
    /// then everything on its way is void, and every stream up to now.
    pub(crate) fn sequence(&mut self, stream: u64, epoch: Epoch, seq: ReportSeq, digest: Digest) -> Sequenced {
        if stream < self.floor {
            return Sequenced::Void;
        }
        let expected = self.in_flight.get(self.sequenced);
        if expected.is_some_and(|next| (next.epoch, next.seq, next.digest) == (epoch, seq, digest)) {
            self.sequenced += 1;
            return Sequenced::Next;
        }
        self.reset();
        Sequenced::Lost
    }

    /// Adds a report of the process before, if nothing new has come since.
    pub(crate) fn recover(&mut self, report: &Checked) -> bool {
        let is_alone = self.in_flight.iter().all(|known| known.stream == 0);
        if !is_alone || self.place(report) != Place::Next {
            return false;
        }
        self.admit(0, report);
        self.unpushed = 0;
        self.sequenced = self.in_flight.len();
        true
    }

    /// Forgets everything that is not sequenced; streams up to now must begin anew.
    pub(crate) fn reset(&mut self) {
        self.in_flight.truncate(self.sequenced);
        self.in_flight_bytes = self.in_flight.iter().map(|report| u64::from(report.bytes)).sum();
        self.unpushed = 0;
        // Nobody owns a chain that was reset and not taken over since; the floor that it has stays.
        self.floor = self.floor.max(self.owner + 1);
        self.owner = 0;
    }

    /// Hears that the first `count` reports on their way are durable, the last of them at `index`, and gives each with its index
    /// to `seen`.
    pub(crate) fn commit(&mut self, count: usize, index: u64, mut seen: impl FnMut(Epoch, ReportSeq, u64)) {
        let count = count.min(self.sequenced);
        for (at, report) in self.in_flight.drain(..count).enumerate() {
            let index = index + 1 + at as u64 - count as u64;
            let head = Head { seq: report.seq, digest: report.digest, index };
            match self.heads.last_mut().filter(|(epoch, _)| *epoch == report.epoch) {
                Some(last) => last.1 = head,
                None => self.heads.push((report.epoch, head)),
            }
            self.in_flight_bytes -= u64::from(report.bytes);
            seen(report.epoch, report.seq, index);
        }
        self.sequenced -= count;
    }

    fn forget_unpushed(&mut self) {
        let kept = self.in_flight.len() - self.unpushed;
        for report in self.in_flight.drain(kept..) {
            self.in_flight_bytes -= u64::from(report.bytes);
        }
        self.unpushed = 0;
    }

    /// The newest report, durable or not.
    fn tip(&self) -> Option<(Epoch, Tip)> {
        match self.in_flight.back() {
            Some(report) => Some((report.epoch, Tip { seq: report.seq, digest: report.digest })),
            None => self.heads.last().map(|(epoch, head)| (*epoch, Tip { seq: head.seq, digest: head.digest })),
        }
    }

    /// What is known of the report at `seq` of `epoch`: its digest and where it stands.
    fn known(&self, epoch: Epoch, seq: ReportSeq) -> Option<(Digest, Standing)> {
        let report = self.in_flight.iter().rev().find(|report| (report.epoch, report.seq) == (epoch, seq));
        let in_flight = report.map(|report| (report.digest, Standing::InFlight(epoch, seq)));
        in_flight.or_else(|| {
            let head = self.durable(epoch).filter(|head| head.seq == seq)?;
            Some((head.digest, Standing::Durable(head.index)))
        })
    }

    /// A report at or before the tip of its epoch.
    fn past(&self, report: &Checked, tip: Tip) -> Place {
        match self.known(report.epoch, report.seq) {
            Some((digest, standing)) if digest == report.digest => {
                Place::Known { is_durable: matches!(standing, Standing::Durable(_)) }
            }
            Some((_, standing)) => Place::Fork(standing),
            None if self.durable(report.epoch).is_some_and(|head| report.seq < head.seq) => Place::Before,
            // A place that a gap on its way declared lost.
            None => Place::OutOfOrder(tip.seq.next()),
        }
    }

    /// A report after the tip of its epoch.
    fn next(&self, report: &Checked, tip: Tip) -> Place {
        let expected = tip.seq.next();
        match report.lost {
            Some(lost) => self.after_loss(report, lost, tip),
            None if report.seq != expected => Place::OutOfOrder(expected),
            None if report.previous != Some(tip.digest) => Place::BrokenChain(expected),
            None => Place::Next,
        }
    }

    /// A gap that says that numbers were used up and lost. The range may reach back over reports that did arrive.
    fn after_loss(&self, report: &Checked, lost: Lost, tip: Tip) -> Place {
        let expected = tip.seq.next();
        if lost.last.next() != report.seq || lost.first > expected {
            return Place::OutOfOrder(expected);
        }
        let before = lost.first.number() - 1;
        let is_linked = match ReportSeq::new(before) {
            None => lost.digest_before.is_none(),
            Some(before) if before == tip.seq => lost.digest_before == Some(tip.digest),
            Some(before) => {
                self.known(report.epoch, before).is_some_and(|(digest, _)| lost.digest_before == Some(digest))
            }
        };
        if is_linked { Place::Next } else { Place::BrokenChain(expected) }
    }

    /// A report of an epoch that was left for a newer one.
    fn resumed(&self, report: &Checked) -> Place {
        match self.known(report.epoch, report.seq) {
            Some((digest, standing)) if digest == report.digest => {
                Place::Known { is_durable: matches!(standing, Standing::Durable(_)) }
            }
            Some((_, standing)) => Place::Fork(standing),
            None if self.durable(report.epoch).is_some_and(|head| report.seq < head.seq) => Place::Before,
            None => match (self.in_flight.back(), self.heads.last()) {
                (Some(tip), _) => Place::Fork(Standing::InFlight(tip.epoch, tip.seq)),
                (None, Some((_, head))) => Place::Fork(Standing::Durable(head.index)),
                (None, None) => Place::NoStart,
            },
        }
    }

    /// The first report of an epoch.
    fn start(&self, report: &Checked) -> Place {
        let begins_lost = report.lost.is_some_and(|lost| {
            lost.first == ReportSeq::FIRST && lost.last.next() == report.seq && lost.digest_before.is_none()
        });
        if report.seq != ReportSeq::FIRST && !begins_lost {
            return Place::OutOfOrder(ReportSeq::FIRST);
        }
        if !report.starts_epoch && !begins_lost {
            return Place::NoStart;
        }
        if self.heads.len() >= EPOCHS { Place::TooManyEpochs } else { Place::Next }
    }
}

#[derive(Clone, Copy)]
struct Tip {
    seq: ReportSeq,
    digest: Digest,
}

/// What a report out of the inbox is to its chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sequenced {
    /// The next one.
    Next,
    /// Of a stream that was ended; it will be sent again.
    Void,
    /// Something before it was lost.
    Lost,
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch::new([1; 16]);

    /// The report at `seq` of an honest chain.
    fn honest(seq: u64) -> Checked {
        let digest = |seq: u64| Digest::of_bytes(&seq.to_be_bytes());
        Checked {
            epoch: EPOCH,
            seq: ReportSeq::new(seq).unwrap(),
            previous: (seq > 1).then(|| digest(seq - 1)),
            digest: digest(seq),
            lost: None,
            starts_epoch: seq == 1,
            bytes: 300,
        }
    }

    #[test]
    fn a_lost_frame_voids_what_followed_it_and_the_next_stream_begins_anew() {
        let mut chain = Chain::default();
        chain.take_over(1);
        for seq in 1..=3 {
            assert_eq!(chain.place(&honest(seq)), Place::Next);
            chain.admit(1, &honest(seq));
        }
        chain.pushed();
        let sequence = |chain: &mut Chain, stream, seq| {
            let report = honest(seq);
            chain.sequence(stream, EPOCH, report.seq, report.digest)
        };
        assert_eq!(sequence(&mut chain, 1, 1), Sequenced::Next);
        assert_eq!(sequence(&mut chain, 1, 3), Sequenced::Lost, "2 is missing");
        assert!(!chain.is_owner(1));
        chain.take_over(2);
        chain.admit(2, &honest(2));
        chain.pushed();
        assert_eq!(sequence(&mut chain, 1, 3), Sequenced::Void, "of the stream before");
        assert_eq!(sequence(&mut chain, 2, 2), Sequenced::Next);
        let mut seen = vec![];
        chain.commit(2, 11, |_, seq, index| seen.push((seq.number(), index)));
        assert_eq!(seen, [(1, 10), (2, 11)]);
        assert_eq!(chain.in_flight(), (0, 0));
    }

    #[test]
    fn what_a_reset_made_void_stays_void_after_another_reset() {
        let mut chain = Chain::default();
        chain.take_over(5);
        chain.admit(5, &honest(1));
        chain.pushed();
        chain.reset();
        chain.reset();
        let report = honest(1);
        assert_eq!(chain.sequence(5, EPOCH, report.seq, report.digest), Sequenced::Void);
    }

    #[test]
    fn epochs_of_one_agent_are_bounded() {
        let mut chain = Chain::default();
        for number in 0..=EPOCHS {
            let epoch = Epoch::new(*Digest::of_bytes(&number.to_be_bytes()).as_bytes().first_chunk().unwrap());
            let report = Checked { epoch, ..honest(1) };
            let place = chain.place(&report);
            if number == EPOCHS {
                assert_eq!(place, Place::TooManyEpochs);
                break;
            }
            assert_eq!(place, Place::Next);
            chain.with_head(epoch, Head { seq: report.seq, digest: report.digest, index: number as u64 });
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// The agent sends the report this far after what is durable; earlier ones are sent again.
        Send(u64),
        /// The stream breaks and another begins; what the inbox did not get is forgotten.
        Reopen,
        /// The inbox gets what was admitted.
        Push,
        /// The inbox loses its oldest record.
        Lose,
        /// The sequencer takes so many records and commits.
        Commit(usize),
        /// The process dies; the inbox keeps its records or is removed.
        Restart { keeps: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0_u64..6).prop_map(Step::Send),
            1 => Just(Step::Reopen),
            4 => Just(Step::Push),
            1 => Just(Step::Lose),
            3 => (0_usize..5).prop_map(Step::Commit),
            1 => any::<bool>().prop_map(|keeps| Step::Restart { keeps }),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever is dropped, sent twice, out of order or lost on the way: the log has 1, 2, 3 and so on, each once, and an
        /// honest agent is never accused.
        #[test]
        fn the_log_holds_each_report_once_and_in_order(steps in steps()) {
            let (mut chain, mut stream) = (Chain::default(), 1);
            chain.take_over(stream);
            let mut outbox: Vec<(u64, Checked)> = vec![];
            let mut inbox: VecDeque<(u64, Checked)> = VecDeque::new();
            let mut recovered: VecDeque<Checked> = VecDeque::new();
            let mut log: Vec<u64> = vec![];
            for step in steps {
                match step {
                    Step::Send(ahead) => {
                        let report = honest((log.len() as u64 + ahead).max(1));
                        if !chain.is_owner(stream) {
                            outbox.clear();
                            stream += 1;
                            chain.take_over(stream);
                        }
                        match chain.place(&report) {
                            Place::Next => {
                                chain.admit(stream, &report);
                                outbox.push((stream, report));
                            }
                            Place::Fork(_) | Place::BrokenChain(_) | Place::NoStart | Place::TooManyEpochs => {
                                prop_assert!(false, "an honest report was accused");
                            }
                            Place::Known { .. } | Place::Before | Place::OutOfOrder(_) => {}
                        }
                    }
                    Step::Reopen => {
                        outbox.clear();
                        stream += 1;
                        chain.take_over(stream);
                    }
                    Step::Push if chain.is_owner(stream) => {
                        inbox.extend(outbox.drain(..));
                        chain.pushed();
                    }
                    Step::Push => outbox.clear(),
                    Step::Lose => drop(inbox.pop_front()),
                    Step::Commit(count) => {
                        let mut taken = vec![];
                        for report in recovered.drain(..) {
                            if chain.recover(&report) {
                                taken.push(report.seq.number());
                            }
                        }
                        for _ in 0..count {
                            let Some((stream, report)) = inbox.pop_front() else { break };
                            if chain.sequence(stream, EPOCH, report.seq, report.digest) == Sequenced::Next {
                                taken.push(report.seq.number());
                            }
                        }
                        log.extend(&taken);
                        chain.commit(taken.len(), log.len() as u64, |_, _, _| {});
                    }
                    Step::Restart { keeps } => {
                        let head = chain.durable(EPOCH);
                        (chain, stream) = (Chain::default(), 1);
                        if let Some(head) = head {
                            chain.with_head(EPOCH, head);
                        }
                        chain.take_over(stream);
                        outbox.clear();
                        recovered.clear();
                        if keeps {
                            recovered.extend(inbox.iter().map(|(_, report)| *report));
                        }
                        inbox.clear();
                    }
                }
                prop_assert!(log.iter().copied().eq(1..=log.len() as u64), "{:?}", log);
                prop_assert_eq!(chain.durable(EPOCH).map_or(0, |head| head.seq.number()), log.len() as u64);
            }
        }
    }
}
