//! Drives one parser of `tests/src/foreign.rs` with what libFuzzer makes up.
//!
//! `MUSTER_FUZZ` names the parser. With `MUSTER_FUZZ_SEEDS` its valid inputs are first written into that folder, which is to be
//! the corpus. Without a name, the names of all parsers are printed. `tests/fuzz/run` does all of it.
#![no_main]

use std::{cell::OnceCell, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use muster_tests::foreign::{Parser, parsers};

struct Driven {
    parser: Parser,
    /// Where parsers that read files find them.
    _scratch: tempfile::TempDir,
}

thread_local! {
    static DRIVEN: OnceCell<Driven> = const { OnceCell::new() };
}

fn driven() -> Driven {
    let scratch = tempfile::tempdir().expect("a folder for scratch");
    let all = parsers(scratch.path());
    let Ok(name) = std::env::var("MUSTER_FUZZ") else {
        all.iter().for_each(|parser| println!("{}", parser.name));
        drop(scratch);
        std::process::exit(0);
    };
    let parser = all.into_iter().find(|parser| parser.name == name);
    let parser = parser.unwrap_or_else(|| panic!("no parser is named {name}"));
    if let Ok(folder) = std::env::var("MUSTER_FUZZ_SEEDS") {
        for (at, seed) in parser.seeds.iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{at}")), seed).expect("the corpus can be written");
        }
    }
    Driven { parser, _scratch: scratch }
}

fuzz_target!(
    init: DRIVEN.with(|cell| {
        cell.get_or_init(driven);
    }),
    |bytes: &[u8]| DRIVEN.with(|cell| (cell.get_or_init(driven).parser.parse)(bytes))
);
