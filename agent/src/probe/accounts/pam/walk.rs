//! The walk of a stack in every way that it may go, as libpam goes it (`_pam_dispatch_aux` of `pam_dispatch.c`).

use std::collections::BTreeSet;

use super::stack::{Action, Line, behind_jump, behind_stack};

/// What a module may return, as far as it matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct May {
    pub(super) succeed: bool,
    pub(super) ignore: bool,
    pub(super) fail: bool,
}

impl May {
    pub(super) const ANY: Self = Self { succeed: true, ignore: true, fail: true };
    pub(super) const SUCCEED: Self = Self { succeed: true, ignore: false, fail: false };
    pub(super) const FAIL: Self = Self { succeed: false, ignore: false, fail: true };
    pub(super) const NOT_SUCCEED: Self = Self { succeed: false, ignore: true, fail: true };
}

/// What the modules so far have decided.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum So {
    Undecided,
    Content,
    Refused,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Returned {
    Success,
    Ignore,
    Failure,
}

/// Returns the line by which a stack may end well while its modules return what they may: one that jumps or ends the stack before
/// others, or the first that is content. `None` where it always refuses.
pub(super) fn passes<'a>(lines: &'a [Line], may: &dyn Fn(&Line) -> May) -> Option<&'a Line> {
    let mut seen = BTreeSet::new();
    // Where in the stack, what was decided, and the line that is to blame for it.
    let mut open: Vec<(usize, So, Option<usize>)> = vec![(0, So::Undecided, None)];
    while let Some((at, so, by)) = open.pop() {
        let Some(line) = lines.get(at) else {
            match by {
                Some(by) if so == So::Content => return Some(&lines[by]),
                _ => continue,
            }
        };
        if !seen.insert((at, so)) {
            continue;
        }
        for (returned, action) in outcomes(line, may(line)) {
            let decided = match (returned, so) {
                (Returned::Ignore, _) => so,
                (Returned::Success, So::Undecided | So::Content) => So::Content,
                (Returned::Success, So::Refused) | (Returned::Failure, _) => So::Refused,
            };
            open.push(match action {
                Action::Ignore => (at + 1, so, by),
                Action::Ok => (at + 1, decided, by.or(Some(at))),
                Action::Bad => (at + 1, So::Refused, by),
                Action::Die => (behind_stack(lines, at), So::Refused, by),
                Action::Done if decided == So::Content => (behind_stack(lines, at), decided, Some(at)),
                Action::Done => (at + 1, decided, by),
                Action::Jump(count) => (behind_jump(lines, at, count), so, Some(at)),
                Action::Other => (at + 1, So::Undecided, Some(at)),
            });
        }
    }
    None
}

/// Returns what a module may return, and what is done then.
fn outcomes(line: &Line, may: May) -> Vec<(Returned, Action)> {
    let mut found = Vec::new();
    if may.succeed {
        found.push((Returned::Success, line.action("success")));
    }
    if may.ignore {
        found.push((Returned::Ignore, line.action("ignore")));
    }
    if may.fail {
        let others = line.actions();
        let others = others.iter().filter(|(name, _)| !matches!(*name, "success" | "ignore"));
        found.extend(others.map(|(_, action)| (Returned::Failure, *action)));
        // Without a word for the rest, it is bad.
        if !line.actions().iter().any(|(name, _)| *name == "default") {
            found.push((Returned::Failure, Action::Bad));
        }
    }
    found
}
