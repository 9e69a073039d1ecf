//! What a scan found, in order, each difference with its explanation if there is one.
//!
//! Explanations are looked for at so many differences at once that a scan which finds very many needs no more memory than another.

use std::{collections::VecDeque, io};

use super::{
    check::Request,
    draft::Drafted,
    explain,
    known::{Known, Unreadable, What},
    merge::Found,
    place::{folder_of, is_at_or_below, order},
};

/// Open differences for which explanations are looked for at once; some more where the next ones are of the same folder.
const AT_ONCE: usize = 4_000;
/// Records that are held meanwhile, at most.
const HELD: usize = AT_ONCE + 1_000;
/// Bytes of those records, at most, but for the last: whoever may write in a home makes them as long as they can be.
const HELD_BYTES: usize = 16 * 1024 * 1024;
/// Open differences for which explanations are looked for in one scan, at most.
const IN_ALL: usize = 50_000;

/// The records of a scan.
pub struct Records<'a> {
    request: &'a Request<'a>,
    drafts: [Drafted; 2],
    late: VecDeque<(Vec<u8>, (usize, Unreadable))>,
    /// Whether differences that nothing explained at an earlier scan are open again.
    asks_again: bool,
    /// Records of which the explanations were looked for.
    held: VecDeque<(Vec<u8>, Known)>,
    asked: usize,
    /// Whether something was explained.
    is_explained: bool,
    is_answered: bool,
}

impl<'a> Records<'a> {
    /// Begins with the first record.
    pub fn start(request: &'a Request<'a>, found: Found) -> Self {
        let Found { drafts, late, asks_again, .. } = found;
        let mut late: Vec<_> = late.into_iter().collect();
        late.sort_by(|(a, _), (b, _)| order(a, b));
        Self {
            request,
            drafts,
            late: late.into(),
            asks_again,
            held: VecDeque::new(),
            asked: 0,
            is_explained: false,
            is_answered: true,
        }
    }

    /// Returns the next record.
    ///
    /// # Errors
    ///
    /// When a draft cannot be read.
    pub fn next(&mut self) -> io::Result<Option<(Vec<u8>, Known)>> {
        if self.held.is_empty() {
            self.hold()?;
        }
        Ok(self.held.pop_front())
    }

    /// Ends, and returns whether there is nothing more to ask the package databases. A difference without an explanation is shown,
    /// which is never wrong, and else the next scan is to ask again.
    pub fn end(self) -> bool {
        let remember = || explain::remember(self.request.host, self.request.store.owners(), self.request.now);
        // Where nothing of so many was explained, nothing of the others would be that was not asked for first.
        let is_left = self.asked >= IN_ALL && self.is_explained;
        self.is_answered && is_done(remember()) && !is_left
    }

    /// Holds the next record; from an open difference on, as many as explanations are looked for at once.
    fn hold(&mut self) -> io::Result<()> {
        let (mut open, mut bytes) = (0, 0);
        while let Some(record) = self.take()? {
            open += usize::from(self.is_open(&record.1));
            bytes += record.0.len() + record.1.size_bytes();
            let folder = folder_of(&record.0).to_vec();
            self.held.push_back(record);
            // What package managers leave beside a file is explained by that file.
            let is_parted = || self.path().is_none_or(|next| folder_of(next) != folder);
            let is_full = self.held.len() >= HELD || bytes >= HELD_BYTES;
            if open == 0 || (open >= AT_ONCE && is_parted()) || is_full {
                break;
            }
        }
        if open > 0 {
            self.asked += open;
            self.is_answered = self.explain();
        }
        Ok(())
    }

    fn is_open(&self, known: &Known) -> bool {
        let What::Differs(difference) = &known.what else { return false };
        let change = &difference.change;
        let is_asked = self.asks_again || change.detected_time == self.request.now;
        self.is_answered && self.asked < IN_ALL && is_asked && change.explanation.is_none()
    }

    fn explain(&mut self) -> bool {
        let roots = self.request.sets.roots();
        let mut changes = explain::Changes::new();
        for (path, known) in &mut self.held {
            if let What::Differs(difference) = &mut known.what {
                let is_new = difference.change.detected_time == self.request.now;
                let since = difference.since;
                let root = roots.iter().find(|root| is_at_or_below(path, &root.path));
                // Of what no set watches any more, no part of the path may be a link.
                let root = root.map_or(b"/".as_slice(), |root| root.path.as_slice());
                changes.insert(path, explain::Asked { change: &mut difference.change, root, since, is_new });
            }
        }
        let open = |changes: &explain::Changes<'_>| changes.values().filter(|asked| asked.is_open()).count();
        let before = open(&changes);
        let is_done = is_done(explain::explain(self.request.host, Some(self.request.store.owners()), &mut changes));
        self.is_explained |= open(&changes) < before;
        is_done
    }

    fn is_second_next(&self) -> bool {
        match (self.drafts[0].path(), self.drafts[1].path()) {
            (Some(a), Some(b)) => order(b, a).is_lt(),
            (first, second) => first.is_none() && second.is_some(),
        }
    }

    /// Returns the path of the next record that is not held.
    fn path(&self) -> Option<&[u8]> {
        let drafted = self.drafts[usize::from(self.is_second_next())].path();
        let late = self.late.front().map(|(path, _)| path.as_slice());
        match (drafted, late) {
            (Some(drafted), Some(late)) if order(late, drafted).is_lt() => Some(late),
            (drafted, late) => drafted.or(late),
        }
    }

    fn take(&mut self) -> io::Result<Option<(Vec<u8>, Known)>> {
        let next = &mut self.drafts[usize::from(self.is_second_next())];
        let is_first = |late: &mut (Vec<u8>, _)| next.path().is_none_or(|path| order(&late.0, path).is_lt());
        if let Some((path, (set, unreadable))) = self.late.pop_front_if(is_first) {
            let seen = unreadable.since;
            let what = What::AsBaseline;
            return Ok(Some((path, Known { set, is_new: false, unreadable: Some(unreadable), seen, what })));
        }
        let Some((path, mut known)) = next.take()? else { return Ok(None) };
        if let Some((_, (_, unreadable))) = self.late.pop_front_if(|(late, _)| *late == path) {
            known.unreadable = Some(unreadable);
        }
        Ok(Some((path, known)))
    }
}

fn is_done(result: io::Result<()>) -> bool {
    if let Err(error) = &result {
        tracing::debug!(%error, "the package databases explain nothing");
    }
    result.is_ok()
}
