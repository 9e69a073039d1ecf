//! No bytes from elsewhere bring a parser down, and what a probe says of a lying machine the collector can take.
//!
//! `MUSTER_TEST_MUTATIONS` says how many changed inputs each parser gets (300), `MUSTER_TEST_SEED` repeats a run. A file of a capture
//! gets a fifth of them: each is a whole look, and the captures of a probe have many files of a kind.

use std::panic::{AssertUnwindSafe, catch_unwind};

use muster_tests::{
    foreign::{mutate, parsers},
    harness::{random::Random, setting},
};

#[test]
fn no_foreign_bytes_bring_a_parser_down() {
    let mut random = Random::printed("foreign bytes");
    let mutations = setting("MUSTER_TEST_MUTATIONS", 300);
    let scratch = tempfile::tempdir().expect("a folder");
    let parsers = parsers(scratch.path());
    let others: Vec<Vec<u8>> = parsers.iter().flat_map(|parser| parser.seeds.iter().cloned()).collect();
    let (mut inputs, mut broken) = (0, Vec::new());
    for parser in &parsers {
        let mut try_with = |bytes: &[u8]| {
            inputs += 1;
            let outcome = catch_unwind(AssertUnwindSafe(|| (parser.parse)(bytes)));
            if outcome.is_err() {
                let shown: String =
                    bytes.iter().take(512).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
                broken.push(format!("{}: {shown}", parser.name));
            }
        };
        parser.seeds.iter().for_each(|seed| try_with(seed));
        let of_capture = parser.name.starts_with("probe/");
        for _ in 0..if of_capture { mutations.div_ceil(5) } else { mutations } {
            let mut bytes = parser.seeds.get(random.index(parser.seeds.len())).cloned().unwrap_or_default();
            mutate(&mut bytes, &others[random.index(others.len())], &mut random);
            try_with(&bytes);
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {inputs} inputs broke a promise; the first:\n{}",
        broken.len(),
        broken.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
    eprintln!("{inputs} inputs for {} parsers, none brought down", parsers.len());
}
