//! Drives one target of `tests/src/foreign/targets.rs` with what libFuzzer makes up.
//!
//! `MUSTER_FUZZ` names the target. With `MUSTER_FUZZ_SEEDS` its valid inputs are first written into that folder, which is to be
//! the corpus. Without a name, all targets are printed, with how many valid inputs and parsers each has. `tests/fuzz/run` does all
//! of it.
#![no_main]

use std::{cell::OnceCell, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use muster_tests::foreign::targets::{self, Target};

struct Driven {
    target: Target,
    /// Where parsers that read files find them.
    _scratch: tempfile::TempDir,
}

thread_local! {
    static DRIVEN: OnceCell<Driven> = const { OnceCell::new() };
}

fn driven() -> Driven {
    let scratch = tempfile::tempdir().expect("a folder for scratch");
    let Ok(name) = std::env::var("MUSTER_FUZZ") else {
        for name in targets::names() {
            let target = targets::target(name, &scratch.path().join(name)).expect("it is one of them");
            println!("{name}\t{}\t{}", target.seeds.len(), target.parsers.len());
        }
        drop(scratch);
        std::process::exit(0);
    };
    let target = targets::target(&name, scratch.path()).unwrap_or_else(|| panic!("no target is named {name}"));
    if let Ok(folder) = std::env::var("MUSTER_FUZZ_SEEDS") {
        for (at, seed) in target.seeds.iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{at}")), seed).expect("the corpus can be written");
        }
    }
    Driven { target, _scratch: scratch }
}

fuzz_target!(
    init: DRIVEN.with(|cell| {
        cell.get_or_init(driven);
    }),
    |bytes: &[u8]| DRIVEN.with(|cell| cell.get_or_init(driven).target.parsers.iter().for_each(|it| (it.parse)(bytes)))
);
