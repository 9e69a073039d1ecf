//! The kernel's ciphers, as `/proc/crypto` lists them. Pure.

/// Returns whether something uses a cipher that encrypts nothing; `None` when `bytes` are no such list.
///
/// Each algorithm is a block of `key : value` lines. One that is there without a user has a `refcnt` of 1 (crypto/proc.c and
/// crypto/algapi.c of the kernel).
pub(super) fn uses_null_cipher(bytes: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(bytes).ok()?;
    // Where the end is missing, the last user may be too; a kernel without any algorithm encrypts nothing.
    if !text.ends_with('\n') {
        return None;
    }
    let mut is_used = false;
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let value = |key: &str| {
            let mut fields = block.lines().filter_map(|line| line.split_once(':'));
            fields.find_map(|(name, value)| (name.trim() == key).then(|| value.trim()))
        };
        let (name, kind, users) = (value("name")?, value("type")?, value("refcnt")?.parse::<u64>().ok()?);
        let is_cipher = matches!(kind, "cipher" | "skcipher" | "lskcipher");
        is_used |= is_cipher && name.contains("cipher_null") && users > 1;
    }
    Some(is_used)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(name: &str, kind: &str, users: u32) -> String {
        format!(
            "name         : {name}\ndriver       : x\nmodule       : kernel\nrefcnt       : {users}\ntype         : {kind}\n\n"
        )
    }

    #[test]
    fn the_null_cipher_counts_when_something_uses_it() {
        let uses = |text: &str| uses_null_cipher(text.as_bytes());
        let aes = block("xts(aes)", "skcipher", 3);
        assert_eq!(uses(&aes), Some(false));
        assert_eq!(uses(&(aes.clone() + &block("ecb(cipher_null)", "skcipher", 1))), Some(false));
        assert_eq!(uses(&(aes.clone() + &block("ecb(cipher_null)", "skcipher", 2))), Some(true));
        assert_eq!(uses(&(aes + &block("digest_null", "shash", 4))), Some(false));
        assert_eq!(uses(""), None);
        assert_eq!(uses(block("ecb(cipher_null)", "skcipher", 2).trim_end()), None);
        assert_eq!(uses("name : x\n\n"), None);
        assert_eq!(uses_null_cipher(&[0xff]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = uses_null_cipher(&bytes);
        }
    }
}
