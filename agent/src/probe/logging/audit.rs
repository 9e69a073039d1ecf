//! What the kernel says of its audit system (linux/audit.h): netlink messages, as the [`Host`] hands them out.

use std::io;

use muster_proto::{
    fact::{Cause, KernelAudit, Reading, Text, Unknown},
    id::Digest,
};

use crate::host::{self, AuditQuery, Host};

const AUDIT_GET: u16 = 1000;
const AUDIT_LIST_RULES: u16 = 1013;
const HEADER_BYTES: usize = 16;
// Lists that a rule is on, the low bits of its flags, of those by which events are recorded. On the others (user, exclude and
// filesystem) a rule only keeps events out.
const FILTER_TASK: u32 = 1;
const FILTER_ENTRY: u32 = 2;
const FILTER_EXIT: u32 = 4;
const FILTER_EXCLUDE: u32 = 5;
const FILTER_URING_EXIT: u32 = 7;
/// A flag beside the list.
const FILTER_PREPEND: u32 = 0x10;
const NEVER: u32 = 0;
/// Words of the mask of system calls, and fields of a rule at most.
const MASK_WORDS: usize = 64;
const MAX_FIELDS: u32 = 64;
/// Words of `struct audit_rule_data` up to the text that follows it: how a field is compared stands in the last ones but one.
const RULE_WORDS: usize = 4 + 4 * MASK_WORDS;
/// `Audit_equal` of how a field is compared. Any other comparison may hold of every event.
const EQUAL: u32 = 0x4000_0000;
/// Other fields whose value leaves no narrow part, though it be compared by equality: AUDIT_ARCH, AUDIT_SUCCESS, AUDIT_PERM,
/// AUDIT_FILETYPE, AUDIT_FIELD_COMPARE, and the key, which is no condition.
const WIDE: [u32; 6] = [11, 104, 106, 108, 111, 210];
/// Fields of who does something (AUDIT_UID to AUDIT_LOGINUID): what is of root is no narrow part.
const OF_USERS: std::ops::RangeInclusive<u32> = 1..=9;
/// AUDIT_MSGTYPE, and the type of the record that each event of a system call has, which names the rule's key.
const MESSAGE_TYPE: u32 = 12;
const SYSTEM_CALL: u32 = 1300;
/// Records in a second of which the kernel drops no event that anyone would miss: an event has up to ten of them.
const LEAST_RATE: u32 = 100;
/// AUDIT_INODE and AUDIT_WATCH: such rules are kept by inode. Those of a folder (AUDIT_DIR) are in the list with the others.
const OF_FILES: [u32; 2] = [102, 105];
/// Digest of rules: `muster/audit-rules/v1`, and each rule with its length.
const RULES_DOMAIN: &str = "muster/audit-rules/v1";
const EPROTONOSUPPORT: i32 = 93;
const ECONNREFUSED: i32 = 111;

/// `struct audit_status`, as far as it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Status {
    enabled: u32,
    daemon: u32,
    /// Records in a second that are taken; 0 for all.
    rate_limit: u32,
    backlog_limit: u32,
    lost: u32,
}

pub(super) fn look(host: &dyn Host) -> KernelAudit {
    let status = match host.audit(AuditQuery::Status) {
        Ok(bytes) => {
            status(&bytes).ok_or_else(|| Unknown::new(Cause::Garbled, "the status of the audit system is cut"))
        }
        // socket(2): the kernel has no audit system, so that it is not on.
        Err(error) if error.raw_os_error() == Some(EPROTONOSUPPORT) => {
            Ok(Status { enabled: 0, daemon: 0, rate_limit: 0, backlog_limit: 0, lost: 0 })
        }
        Err(error) => Err(unknown(&error)),
    };
    let rules = match host.audit(AuditQuery::Rules) {
        Ok(bytes) => rules(&bytes).ok_or_else(|| Unknown::new(Cause::Garbled, "the rules of the audit system are cut")),
        Err(error) if error.raw_os_error() == Some(EPROTONOSUPPORT) => Ok((Ok(0), digest(&[]))),
        Err(error) => Err(unknown(&error)),
    };
    told(&reading(status), reading(rules))
}

fn told(status: &Reading<Status>, rules: Reading<Rules>) -> KernelAudit {
    KernelAudit {
        enabled: status.clone().map(|status| status.enabled != 0),
        immutable: status.clone().map(|status| status.enabled == 2),
        daemon_running: status.clone().map(|status| status.daemon != 0),
        lost: status.clone().map(|status| power_of_ten(status.lost.into())),
        backlog_limit: status.clone().map(|status| status.backlog_limit.into()),
        rules: match (status, &rules) {
            (Reading::Known(Status { rate_limit: 1..LEAST_RATE, .. }), Reading::Known((Ok(1..), _))) => {
                let detail =
                    format!("the kernel drops what is above its rate limit, under {LEAST_RATE} records a second");
                Reading::unknown(Cause::Undecidable, detail)
            }
            (_, Reading::Known((count, _))) => reading(count.clone()),
            (_, Reading::Unknown { unknown }) => Reading::Unknown { unknown: unknown.clone() },
        },
        rules_digest: rules.map(|(_, digest)| Text::new(&digest.to_string())),
    }
}

fn reading<T>(result: Result<T, Unknown>) -> Reading<T> {
    result.map_or_else(|unknown| Reading::Unknown { unknown }, Reading::Known)
}

fn unknown(error: &io::Error) -> Unknown {
    match error.raw_os_error() {
        // The kernel has no end for a socket of another user or network namespace, nor when it was started with audit=0.
        Some(ECONNREFUSED) => Unknown::new(
            Cause::Hidden,
            "audit netlink refused: the host is a container, or its kernel was started with audit=0",
        ),
        _ => host::unknown("ask the kernel's audit system (CAP_AUDIT_CONTROL, outside of containers)", error),
    }
}

/// Returns the least power of ten that `count` does not exceed; 0 for 0. Each single loss would make a report.
fn power_of_ten(count: u64) -> u64 {
    let mut step = u64::from(count > 0);
    while step < count {
        step *= 10;
    }
    step
}

/// Takes the next message off the front: its type and its body. `None` at the end and where it is cut.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let body = bytes.get(HEADER_BYTES..length)?;
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

fn status(mut bytes: &[u8]) -> Option<Status> {
    loop {
        let (kind, body) = take(&mut bytes)?;
        if kind != AUDIT_GET {
            continue;
        }
        // mask, enabled, failure, pid, rate_limit, backlog_limit, lost
        let number = |at: usize| body.get(at * 4..at * 4 + 4)?.try_into().ok().map(u32::from_ne_bytes);
        return Some(Status {
            enabled: number(1)?,
            daemon: number(3)?,
            rate_limit: number(4)?,
            backlog_limit: number(5)?,
            lost: number(6)?,
        });
    }
}

/// What is told of a rule, of `struct audit_rule_data`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    list: u32,
    action: u32,
    fields: u32,
    /// Bits of the system calls that it is of.
    calls: Vec<u32>,
    /// Whether it is of a file, by its path or inode.
    of_files: bool,
    /// Whether some field holds of a part of the events alone, for certain.
    is_narrow: bool,
}

impl Rule {
    /// Returns `None` where it is cut.
    fn parse(body: &[u8]) -> Option<Self> {
        let (words, _) = body.get(..RULE_WORDS * 4)?.as_chunks::<4>();
        let words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        // flags, action, field_count, mask[64], fields[64], values[64], fieldflags[64], buflen. auditctl leaves the last word of
        // the mask, of classes of calls, empty.
        let [flags, action, fields] = *words.first_chunk::<3>()?;
        let part = |at: usize| &words[3 + at * MASK_WORDS..][..MASK_WORDS];
        let named = || part(1).iter().zip(part(2)).zip(part(3)).take(fields.min(MAX_FIELDS) as usize);
        let is_narrow = |field: u32, value: u32| match field {
            MESSAGE_TYPE => value != SYSTEM_CALL,
            field if OF_USERS.contains(&field) => value != 0,
            field => !WIDE.contains(&field),
        };
        Some(Self {
            list: flags & !FILTER_PREPEND,
            action,
            fields,
            calls: part(0)[..MASK_WORDS - 1].to_vec(),
            of_files: named().any(|((field, _), _)| OF_FILES.contains(field)),
            is_narrow: named().any(|((field, value), comparison)| *comparison == EQUAL && is_narrow(*field, *value)),
        })
    }

    fn is_of_all_calls(&self) -> bool {
        self.calls.iter().all(|&word| word == u32::MAX)
    }
}

/// How many rules record something, where that can be told, and the digest of all in their order.
type Rules = (Result<u64, Unknown>, Digest);

/// Returns `None` where they are cut.
fn rules(mut bytes: &[u8]) -> Option<Rules> {
    let (mut bodies, mut rules) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let (kind, body) = take(&mut bytes)?;
        if kind == AUDIT_LIST_RULES {
            bodies.push(body);
            rules.push(Rule::parse(body)?);
        }
    }
    Some((recording(&rules), digest(&bodies)))
}

/// Returns how many of the rules record something.
///
/// The first rule of the list `task` that a new task matches decides whether its system calls are looked at (auditctl(8)). With
/// `-a task,never`, which some distributions load when nothing else is set, no task's are, and every other rule is idle. In the same
/// way `-a exit,never` leaves those of system calls after it idle; the kernel asks those of a file's inode beside them (`kernel/auditsc.c`).
/// What a rule of the list `exclude` matches is not written at all. Where nothing but an order (`-F uid>=0`) says what such a rule
/// matches, that may be everything.
fn recording(rules: &[Rule]) -> Result<u64, Unknown> {
    let mut of_all_tasks = rules.iter().filter(|rule| rule.list == FILTER_TASK && rule.fields == 0);
    if of_all_tasks.next().is_some_and(|rule| rule.action == NEVER) {
        return Ok(0);
    }
    let is_end =
        |rule: &Rule| rule.list == FILTER_EXIT && rule.fields == 0 && rule.is_of_all_calls() && rule.action == NEVER;
    let end = rules.iter().position(is_end).unwrap_or(rules.len());
    let records = |(at, rule): &(usize, &Rule)| match rule.list {
        _ if rule.action == NEVER => false,
        FILTER_EXIT => *at < end || rule.of_files,
        list => matches!(list, FILTER_TASK | FILTER_ENTRY | FILTER_URING_EXIT),
    };
    let count = rules.iter().enumerate().filter(records).count() as u64;
    let undecidable = |(at, rule): (usize, &Rule)| {
        let list = match rule.list {
            FILTER_TASK => "task",
            FILTER_EXCLUDE => "exclude",
            _ => "exit",
        };
        let detail = format!("rule {} of the audit, of the list {list}, may keep out all that others record", at + 1);
        Err(Unknown::new(Cause::Undecidable, detail))
    };
    match rules.iter().enumerate().find(|(at, rule)| may_leave_idle(rule, rules.get(at + 1..).unwrap_or_default())) {
        Some(found) if count > 0 => undecidable(found),
        _ => Ok(count),
    }
}

/// Returns whether a rule that no part of the events bounds may keep out what those after it, or all, record.
fn may_leave_idle(rule: &Rule, after: &[Rule]) -> bool {
    if rule.is_narrow || rule.fields == 0 {
        return false;
    }
    let covers = |other: &Rule| rule.calls.iter().zip(&other.calls).all(|(own, other)| own & other == *other);
    match (rule.list, rule.action) {
        // Its action is not asked (`audit_filter`).
        (FILTER_EXCLUDE, _) | (FILTER_TASK, NEVER) => true,
        (FILTER_EXIT, NEVER) => after
            .iter()
            .any(|other| other.list == FILTER_EXIT && other.action != NEVER && !other.of_files && covers(other)),
        _ => false,
    }
}

fn digest(rules: &[&[u8]]) -> Digest {
    let mut framed = Vec::new();
    for rule in rules {
        framed.extend_from_slice(&(rule.len() as u64).to_be_bytes());
        framed.extend_from_slice(rule);
    }
    Digest::of(RULES_DOMAIN, &[&framed])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_status_is_read_from_its_message() {
        let body: Vec<u8> = [0, 2, 1, 4711, 60, 8192, 12, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let expected = Status { enabled: 2, daemon: 4711, rate_limit: 60, backlog_limit: 8192, lost: 12 };
        assert_eq!(status(&message(AUDIT_GET, &body)), Some(expected));
        assert_eq!(status(&[message(2, b"ack "), message(AUDIT_GET, &body)].concat()), Some(expected));
        assert_eq!(status(&message(AUDIT_GET, &body[..20])), None);
        assert_eq!(status(&[]), None);
    }

    /// Names of fields and comparisons, as in linux/audit.h.
    const UID: u32 = 1;
    const AUID: u32 = 9;
    const ARCH: u32 = 11;
    const SUBJ_TYPE: u32 = 15;
    const MSGTYPE: u32 = 12;
    const DIR: u32 = 107;
    const COMPARE: u32 = 111;
    const KEY: u32 = 210;
    const NOT_EQUAL: u32 = 0x3000_0000;
    const AT_LEAST: u32 = 0x6000_0000;

    /// Value of fields that tells some user, message type or file.
    const SOME: u32 = 1000;

    fn full(list: u32, action: u32, mask: u32, fields: &[(u32, u32)]) -> Vec<u8> {
        let fields: Vec<_> = fields.iter().map(|(field, comparison)| (*field, *comparison, SOME)).collect();
        with_values(list, action, mask, &fields)
    }

    fn with_values(list: u32, action: u32, mask: u32, fields: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut body = vec![list, action, u32::try_from(fields.len()).unwrap()];
        body.extend([mask; MASK_WORDS - 1].into_iter().chain([0]));
        let pad = |words: Vec<u32>| words.into_iter().chain([0; MASK_WORDS]).take(MASK_WORDS);
        body.extend(pad(fields.iter().map(|(field, ..)| *field).collect()));
        body.extend(pad(fields.iter().map(|(.., value)| *value).collect()));
        body.extend(pad(fields.iter().map(|(_, comparison, _)| *comparison).collect()));
        body.push(0);
        message(AUDIT_LIST_RULES, &body.into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<_>>())
    }

    fn rule(flags: u32, action: u32, fields: u32) -> Vec<u8> {
        full(flags, action, 7, &vec![(UID, EQUAL); fields as usize])
    }

    fn count(messages: &[u8]) -> Option<u64> {
        rules(messages).unwrap().0.ok()
    }

    #[test]
    fn rules_count_and_their_order_matters() {
        let (a, b) = (rule(FILTER_EXIT, 2, 3), rule(FILTER_EXIT, 2, 2));
        let (both, reverse) =
            (rules(&[a.clone(), b.clone()].concat()).unwrap(), rules(&[b, a.clone()].concat()).unwrap());
        assert_eq!((both.0, reverse.0), (Ok(2), Ok(2)));
        assert_ne!(both.1, reverse.1);
        assert_eq!(count(&[]), Some(0));
        assert_eq!(rules(&a[..10]), None);
        assert_eq!(rules(&message(AUDIT_LIST_RULES, b"cut rule")), None);
        assert_eq!(rules(&message(AUDIT_LIST_RULES, &a[HEADER_BYTES..a.len() - 8])), None);
    }

    #[test]
    fn a_rule_that_keeps_events_out_does_not_count() {
        let (never, always) = (0, 2);
        let (user, exclude, filesystem) = (0, 5, 6);
        let watch = (FILTER_EXIT, always, 3);
        for (list, expected) in [
            (&[watch, (FILTER_URING_EXIT, always, 1), (FILTER_EXIT | FILTER_PREPEND, always, 1)][..], 3),
            (&[watch, (FILTER_EXIT, never, 1)], 1),
            (&[watch, (exclude, always, 1), (filesystem, never, 1), (user, always, 1)], 1),
            // As distributions load it when nothing else is set.
            (&[(FILTER_TASK, never, 0)], 0),
            (&[watch, (FILTER_TASK, never, 0)], 0),
            (&[watch, (FILTER_TASK | FILTER_PREPEND, never, 0)], 0),
            // It leaves other tasks in.
            (&[watch, (FILTER_TASK, never, 1)], 1),
            // The first that matches holds.
            (&[(FILTER_TASK, always, 0), (FILTER_TASK, never, 0), watch], 2),
        ] {
            let messages: Vec<u8> =
                list.iter().flat_map(|(flags, action, fields)| rule(*flags, *action, *fields)).collect();
            assert_eq!(count(&messages), Some(expected), "{list:?}");
        }
    }

    #[test]
    fn what_comes_after_a_rule_that_keeps_every_call_out_does_not_count() {
        let (never, always, watch) = (0, 2, 105);
        let all = u32::MAX;
        let (end, calls) =
            (full(FILTER_EXIT, never, all, &[]), full(FILTER_EXIT, always, all, &[(ARCH, EQUAL), (UID, EQUAL)]));
        let files = [
            full(FILTER_EXIT, always, all, &[(watch, EQUAL), (106, EQUAL)]),
            full(FILTER_EXIT, always, all, &[(DIR, EQUAL)]),
        ]
        .concat();
        for (messages, expected) in [
            ([&calls[..], &end, &calls, &files].concat(), 2),
            ([&end[..], &calls].concat(), 0),
            // Those of some calls, or of what some field says, leave the others in.
            ([&full(FILTER_EXIT, never, 7, &[])[..], &calls].concat(), 1),
            ([&full(FILTER_EXIT, never, all, &[(UID, EQUAL)])[..], &calls].concat(), 1),
            ([&end[..], &full(FILTER_URING_EXIT, always, all, &[(UID, EQUAL)])].concat(), 1),
        ] {
            assert_eq!(count(&messages), Some(expected));
        }
    }

    #[test]
    fn a_rule_that_may_keep_everything_out_leaves_the_count_open() {
        let (never, always, watch, all) = (0, 2, 105, u32::MAX);
        let file = full(FILTER_EXIT, always, all, &[(watch, EQUAL), (106, EQUAL)]);
        let call = full(FILTER_EXIT, always, 7, &[(ARCH, EQUAL), (AUID, AT_LEAST), (KEY, EQUAL)]);
        let before =
            |list, action, mask, fields: &[(u32, u32)]| [&full(list, action, mask, fields)[..], &file, &call].concat();
        for (list, action, mask, fields) in [
            (FILTER_EXCLUDE, always, all, &[(MSGTYPE, AT_LEAST)][..]),
            (FILTER_EXCLUDE, never, all, &[(UID, AT_LEAST)]),
            (FILTER_EXCLUDE, always, all, &[(AUID, NOT_EQUAL)]),
            (FILTER_TASK, never, all, &[(UID, AT_LEAST), (KEY, EQUAL)]),
            (FILTER_EXIT, never, all, &[(UID, AT_LEAST)]),
            (FILTER_EXIT, never, all, &[(ARCH, EQUAL)]),
            (FILTER_EXIT, never, 15, &[(COMPARE, EQUAL)]),
        ] {
            let found = rules(&before(list, action, mask, fields)).unwrap().0;
            assert_eq!(found.map_err(|unknown| unknown.cause), Err(Cause::Undecidable), "{list} {fields:?}");
        }
        // As distributions and guides have them.
        for (list, action, mask, fields) in [
            (FILTER_EXCLUDE, always, all, &[(MSGTYPE, EQUAL)][..]),
            (FILTER_EXCLUDE, never, all, &[(MSGTYPE, EQUAL)]),
            (FILTER_EXCLUDE, always, all, &[(MSGTYPE, EQUAL), (UID, AT_LEAST)]),
            (0, never, all, &[(SUBJ_TYPE, EQUAL)]),
            (6, never, all, &[(26, EQUAL)]),
            (FILTER_EXIT, never, all, &[(SUBJ_TYPE, EQUAL)]),
            (FILTER_EXIT, never, all, &[(ARCH, EQUAL), (DIR, EQUAL), (KEY, EQUAL)]),
            (FILTER_EXIT, never, 3, &[(ARCH, EQUAL)]),
            (FILTER_TASK, always, all, &[(UID, AT_LEAST)]),
        ] {
            let expected = if list == FILTER_TASK { 3 } else { 2 };
            assert_eq!(count(&before(list, action, mask, fields)), Some(expected), "{list} {fields:?}");
        }
        // It comes after what it would keep out, or there is nothing to keep out.
        assert_eq!(count(&[&call[..], &full(FILTER_EXIT, never, all, &[(UID, AT_LEAST)])].concat()), Some(1));
        assert_eq!(count(&full(FILTER_EXCLUDE, always, all, &[(MSGTYPE, AT_LEAST)])), Some(0));
    }

    #[test]
    fn what_is_of_root_and_the_record_of_a_call_are_no_narrow_part() {
        let (never, always, all, loginuid_unset) = (0, 2, u32::MAX, u32::MAX);
        let call = full(FILTER_EXIT, always, 7, &[(ARCH, EQUAL), (KEY, EQUAL)]);
        let (path, record) = (1302, SYSTEM_CALL);
        for (list, action, fields, expected) in [
            (FILTER_EXIT, never, &[(ARCH, EQUAL, SOME), (UID, EQUAL, 0)][..], None),
            (FILTER_EXIT, never, &[(AUID, EQUAL, 0)], None),
            (FILTER_EXIT, never, &[(AUID, EQUAL, loginuid_unset)], Some(1)),
            (FILTER_EXIT, never, &[(UID, EQUAL, 0), (DIR, EQUAL, 4)], Some(1)),
            (FILTER_TASK, never, &[(UID, EQUAL, 0)], None),
            (FILTER_EXCLUDE, always, &[(MSGTYPE, EQUAL, record)], None),
            (FILTER_EXCLUDE, always, &[(MSGTYPE, EQUAL, path)], Some(1)),
            (FILTER_EXCLUDE, always, &[(MSGTYPE, EQUAL, record), (SUBJ_TYPE, EQUAL, 4)], Some(1)),
        ] {
            let messages = [&with_values(list, action, all, fields)[..], &call].concat();
            assert_eq!(count(&messages), expected, "{list} {fields:?}");
        }
    }

    #[test]
    fn a_rate_that_drops_most_leaves_the_count_open() {
        let rules = |rate_limit, rules: &[u8]| {
            let status = Status { enabled: 1, daemon: 4711, rate_limit, backlog_limit: 8192, lost: 0 };
            told(&Reading::Known(status), Reading::Known(super::rules(rules).unwrap())).rules.known().copied()
        };
        let call = full(FILTER_EXIT, 2, 7, &[(UID, EQUAL)]);
        let of = |rate_limit| rules(rate_limit, &call);
        assert_eq!((of(0), of(1), of(99), of(100)), (Some(1), None, None, Some(1)));
        assert_eq!(rules(1, &[]), Some(0), "nothing is recorded anyway");
    }

    #[test]
    fn losses_are_told_in_powers_of_ten() {
        for (count, expected) in [(0, 0), (1, 1), (2, 10), (10, 10), (11, 100), (u64::from(u32::MAX), 10_000_000_000)] {
            assert_eq!(power_of_ten(count), expected, "{count}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (status(&bytes), rules(&bytes));
        }
    }
}
