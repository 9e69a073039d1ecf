//! shadow(5) without its secrets: what stands for each password, never a hash.
//!
//! Hashes never get past the door to the machine, so that no probe, capture or fact can hold one.

/// Where the file is.
pub const SHADOW: &str = "/etc/shadow";
/// Where the same of groups is (gshadow(5)), whose lines begin alike.
pub const GSHADOW: &str = "/etc/gshadow";

/// Stands for a hash.
const HASH: &[u8] = b"(hash)";

/// Returns the lines of a shadow(5) file with each hash replaced by `(hash)`.
///
/// What stands before a hash to lock it (`!`, which usermod(8) writes, or `*`) is kept. A line without fields is dropped whole, since
/// nothing tells what it holds; of one at the end that has no end either, `:` stays, so that the file is seen to be cut. Doing it twice
/// is doing it once.
pub fn without_hashes(file: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.len());
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(name), Some(password), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
            out.extend((!line.ends_with(b"\n")).then_some(b':'));
            continue;
        };
        out.extend_from_slice(name);
        out.push(b':');
        let marks = password.iter().take_while(|byte| matches!(byte, b'!' | b'*')).count();
        out.extend_from_slice(&password[..marks]);
        if password.len() > marks {
            out.extend_from_slice(HASH);
        }
        out.push(b':');
        out.extend_from_slice(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_locks_a_password_stays_and_the_hash_does_not() {
        let file = b"root:$y$j9T$salt$hash:20000:0:99999:7:::\nbin:*:1::::::\nlocked:!$6$s$h:1::::::\nnew:!!:1::::::\nopen::1::::::\n\
            secret-without-fields\n";
        let kept =
            b"root:(hash):20000:0:99999:7:::\nbin:*:1::::::\nlocked:!(hash):1::::::\nnew:!!:1::::::\nopen::1::::::\n";
        assert_eq!(without_hashes(file).as_slice(), kept);
    }

    #[test]
    fn a_file_that_was_cut_stays_cut() {
        for (file, kept) in [
            ("a:x:1:\nsudo:!:carol:al", "a:(hash):1:\nsudo:!:carol:al"),
            ("a:x:1:\nsudo:$6$sa", "a:(hash):1:\n:"),
            ("a:x:1:\nsu", "a:(hash):1:\n:"),
            ("a:x:1:\n", "a:(hash):1:\n"),
            ("", ""),
        ] {
            let once = without_hashes(file.as_bytes());
            assert_eq!((once.as_slice(), without_hashes(&once).as_slice()), (kept.as_bytes(), kept.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn no_password_gets_through(name in "[a-z]{1,8}", marks in "[!*]{0,2}", hash in "[A-Z$./0-9]{1,40}") {
            let once = without_hashes(format!("{name}:{marks}{hash}:1:2:3:4:::\n").as_bytes());
            let expected = format!("{name}:{marks}(hash):1:2:3:4:::\n");
            prop_assert_eq!(String::from_utf8_lossy(&once), expected.as_str());
            prop_assert_eq!(without_hashes(&once), once);
        }
    }
}
