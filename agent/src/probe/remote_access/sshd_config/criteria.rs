//! What the `Match` blocks of sshd_config(5) are for.

use super::line::words;

/// What a block is for that is for every connection.
pub(super) const ALL: &str = "all";
/// What a block is for that is for names of which there is no account.
const INVALID_USER: &str = "invalid-user";
/// Criteria of a block that each connection has something for. Every account is in a group.
const CRITERIA: [&str; 4] = ["address", "group", "host", "user"];
/// Criteria without an argument.
const BARE: [&str; 4] = [ALL, "canonical", "final", INVALID_USER];
/// What every address is in one of.
const ADDRESSES: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Returns what a `Match` is for that stands in a block which is for `outer`.
pub(super) fn inner_scope(outer: Option<&str>, value: &str) -> String {
    let is_all = is_for_all(value);
    match outer {
        Some(outer) if is_all => outer.to_owned(),
        Some(outer) => format!("{outer}, {value}"),
        None if is_all => ALL.to_owned(),
        None => value.to_owned(),
    }
}

/// Returns whether what a `Match` is for is every connection.
fn is_for_all(value: &str) -> bool {
    let words = words(value);
    let is_any = |pair: &[String]| match pair {
        [name, list] => {
            let has = |own: &str| list.split(',').any(|item| item.trim() == own);
            let name = name.to_ascii_lowercase();
            let is_every = has("*") || name == "address" && ADDRESSES.iter().all(|own| has(own));
            CRITERIA.contains(&name.as_str()) && is_every && !list.contains('!')
        }
        _ => false,
    };
    match words.as_slice() {
        [] => false,
        [all] => all.eq_ignore_ascii_case(ALL),
        pairs => pairs.chunks(2).all(is_any),
    }
}

/// Returns whether what a `Match` is for is no account.
pub(super) fn is_for_nobody(value: &str) -> bool {
    let words = words(value);
    let mut words = words.iter().map(|word| word.to_ascii_lowercase());
    while let Some(word) = words.next() {
        if word == INVALID_USER {
            return true;
        }
        if !BARE.contains(&word.as_str()) {
            words.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_is_for_every_connection_where_none_can_be_outside_of_it() {
        assert_eq!([inner_scope(Some("User a"), "All"), inner_scope(None, "ALL")], ["User a", "all"]);
        for all in [
            "User *",
            "address \"*\"",
            "Host * User *",
            "Group *",
            "User a,*",
            "Address 0.0.0.0/0,::/0",
            "User * Address ::/0,10.0.0.0/8,0.0.0.0/0",
        ] {
            assert_eq!([inner_scope(None, all), inner_scope(Some("User a"), all)], ["all", "User a"], "{all}");
        }
        for some in [
            "User a",
            "User *,!a",
            "User * Address 10.0.0.0/8",
            "Address 0.0.0.0/0",
            "Address 0.0.0.0/0,::/0,!10.0.0.1",
            "Group a",
            "User 0.0.0.0/0,::/0",
            "LocalPort *",
            "User * Host",
            "User",
            "",
        ] {
            assert_eq!(inner_scope(None, some), some);
        }
    }

    #[test]
    fn a_block_for_names_without_an_account_is_for_nobody() {
        for (criteria, expected) in [
            ("invalid-user", true),
            ("Host x Invalid-User", true),
            ("final invalid-user", true),
            ("User invalid-user", false),
            ("all", false),
            ("", false),
        ] {
            assert_eq!(is_for_nobody(criteria), expected, "{criteria}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_criteria_never_panic(text in "[A-Za-z \"*,!0-9]{0,80}", any in "\\PC*") {
            for text in [text, any] {
                let _ = (inner_scope(Some(&text), &text), is_for_nobody(&text));
            }
        }
    }
}
