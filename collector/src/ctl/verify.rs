//! `verify`: a snapshot, offline. Needs no credential.

use std::path::Path;

use muster_proto::{id::Digest, words::counted};

use super::{
    Error, Outcome,
    fleet::field,
    print::{Out, Tone, safe},
};
use crate::snapshot::{
    archive,
    verify::{Trust, Verification, verify},
};

/// Verifies the snapshot in `file` and prints what is proven, claimed and unknown. No when something is wrong.
///
/// # Errors
///
/// When the file cannot be read.
pub fn run(out: Out, file: &Path, trust: &Trust) -> Result<Outcome, Error> {
    let read = || -> std::io::Result<Vec<u8>> {
        let bytes = std::fs::metadata(file)?.len();
        if bytes > archive::BYTES as u64 {
            return Err(std::io::Error::other("it is larger than any snapshot"));
        }
        std::fs::read(file)
    };
    let bytes = read().map_err(|source| Error::Read { path: file.to_owned(), source })?;
    let verification = verify(&bytes, trust);
    let outcome = if verification.valid { Outcome::Yes } else { Outcome::No };
    out.show(
        || serde_json::to_value(&verification).expect("a verification is JSON"),
        |out| text(out, file, &verification),
    )?;
    Ok(outcome)
}

/// Returns a pin of a CA: `sha256:` and 64 hex digits.
///
/// # Errors
///
/// A sentence for the person who wrote it.
pub fn pin(text: &str) -> Result<Digest, String> {
    text.strip_prefix("sha256:").unwrap_or(text).parse().map_err(|error: muster_proto::id::Error| error.to_string())
}

/// Returns the key of a log, in its one form.
///
/// # Errors
///
/// A sentence for the person who wrote it.
pub fn log_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = "it is not the key of a log: NAME+8 hex digits+base64, whole, as `musterctl log checkpoint` prints it";
    crate::log::origin(text).map(|_| text.to_owned()).map_err(|_| wrong.to_owned())
}

fn text(out: Out, file: &Path, it: &Verification) -> String {
    let mut text = match it.valid {
        true if it.log_key_trusted => out.tone(Tone::Good, "VALID"),
        true => out.tone(Tone::Doubt, "VALID, if this log key is the collector's"),
        false => out.tone(Tone::Bad, "NOT VALID"),
    };
    text.push_str(&format!("  {}\n\n", safe(&file.display().to_string())));
    if let Some(manifest) = &it.manifest {
        let collector = manifest.collector.as_ref().map_or("", |collector| collector.name.as_str());
        for (name, value) in [
            ("collector", collector.to_owned()),
            ("as of", manifest.parameters.as_of.to_string()),
            ("log", format!("{}, root {}", counted(manifest.log.size, "entry"), manifest.log.root)),
            (
                "log key",
                format!("{} ({})", manifest.log.key, if it.log_key_trusted { "yours" } else { "the file's own" }),
            ),
            ("catalogue", manifest.catalogue.version.clone()),
            (
                "hosts",
                format!(
                    "{}, {} judged",
                    scope(manifest.counts.hosts, manifest.log.hosts_enrolled, manifest.parameters.hosts.is_some()),
                    manifest.counts.hosts_judged
                ),
            ),
            (
                "controls",
                scope(manifest.counts.controls, manifest.catalogue.controls, manifest.parameters.controls.is_some()),
            ),
        ] {
            text.push_str(&field(name, &value));
        }
    }
    text.push_str(&field("sha256", &it.sha256));
    let problems: Vec<_> = it
        .problems
        .iter()
        .map(|problem| match problem.file.as_str() {
            file if problem.what.starts_with(file) => problem.what.clone(),
            file => format!("{file}: {}", problem.what),
        })
        .collect();
    for (title, tone, items) in [
        ("Wrong", Tone::Bad, &problems),
        ("Proven", Tone::Good, &it.proven),
        ("Claimed", Tone::Doubt, &it.claimed),
        ("Unknown", Tone::Doubt, &it.unknown),
    ] {
        if !items.is_empty() {
            text.push_str(&format!("\n{}\n", out.tone(tone, title)));
            items.iter().for_each(|item| text.push_str(&format!("  - {}\n", safe(item))));
        }
    }
    text
}

/// Returns how many of all are in scope, and who says which.
fn scope(here: u64, all: u64, is_chosen: bool) -> String {
    if is_chosen { format!("{here} of {all}, chosen by whoever asked") } else { format!("{here} of {all}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_log_key_is_a_wrong_argument_and_no_bad_snapshot() {
        let key = crate::log::Key::generate("c1").unwrap();
        assert_eq!(log_key(&format!(" {}\n", key.vkey())).as_deref(), Ok(key.vkey()));
        let cut = &key.vkey()[..key.vkey().len() - 4];
        let renamed = key.vkey().replacen("c1", "c2", 1);
        for wrong in ["", " ", "c1", cut, &renamed, key.secret_text()] {
            assert!(log_key(wrong).unwrap_err().contains("musterctl log checkpoint"), "{wrong}");
        }
    }
}
