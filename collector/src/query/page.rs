//! Pages of lists, as AIP-158 has them. Pure.
//!
//! A page token is the key of the last item of a page and a checksum that binds it to the list and to its filter, so that a
//! token of another request is refused instead of giving a wrong page. It grants nothing that the request would not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_proto::{id::Digest, limits};

/// Items of a page when none are asked for.
const DEFAULT_ITEMS: usize = 50;
/// Items of a page, at most.
const MAX_ITEMS: usize = 1000;
/// Bytes of the parts of a page that have no small bound, at most, so that the client takes the answer whatever else is in it.
const PAGE_BYTES: usize = limits::CLIENT_MESSAGE_BYTES / 4;
/// Bytes of a token, at most.
const TOKEN_BYTES: usize = 512;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 16;
/// Domain of the checksum.
const DOMAIN: &str = "muster/page/v1";

/// A page cannot be given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The size is negative.
    #[error("page size is negative; 0 means {DEFAULT_ITEMS}, and more than {MAX_ITEMS} is taken as {MAX_ITEMS}")]
    Size,
    /// The token is none, or belongs to another request.
    #[error("page token is not one that this request gave; start again without one")]
    Token,
}

/// Where a page begins, and how long it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page<'a> {
    list: &'static str,
    filter: &'a str,
    size: usize,
    after: Option<String>,
}

impl<'a> Page<'a> {
    /// Returns the page of `list` that a request asks for.
    ///
    /// # Errors
    ///
    /// When the size is negative, or the token is not of this list and filter.
    pub fn parse(list: &'static str, filter: &'a str, size: i32, token: &str) -> Result<Self, Error> {
        let size = match usize::try_from(size).map_err(|_| Error::Size)? {
            0 => DEFAULT_ITEMS,
            size => size.min(MAX_ITEMS),
        };
        let mut page = Self { list, filter, size, after: None };
        if token.is_empty() {
            return Ok(page);
        }
        if token.len() > TOKEN_BYTES {
            return Err(Error::Token);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::Token)?;
        let (checksum, key) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or(Error::Token)?;
        let key = std::str::from_utf8(key).map_err(|_| Error::Token)?;
        if checksum != page.checksum(key) {
            return Err(Error::Token);
        }
        page.after = Some(key.to_owned());
        Ok(page)
    }

    /// Returns the key of the last item before it; `None` for the first page.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the items of this page, and the token of the next one, empty after the last. `items` come in the order of
    /// their keys.
    pub fn take<T>(&self, items: impl Iterator<Item = (String, T)>) -> (Vec<T>, String) {
        self.take_within(items, |_| 0)
    }

    /// Returns the items as [`Page::take`] does, fewer where they are large by `bytes`. There is always one, if there are any.
    pub fn take_within<T>(
        &self,
        items: impl Iterator<Item = (String, T)>,
        bytes: impl Fn(&T) -> usize,
    ) -> (Vec<T>, String) {
        let mut rest = items.skip_while(|(key, _)| self.after.as_ref().is_some_and(|after| key <= after)).peekable();
        let mut page = Vec::new();
        let (mut last, mut taken) = (String::new(), 0);
        let fits = |count: usize, taken: usize| count == 0 || count < self.size && taken <= PAGE_BYTES;
        while let Some((key, item)) = rest.next_if(|(_, item)| fits(page.len(), taken + bytes(item))) {
            taken += bytes(&item);
            page.push(item);
            last = key;
        }
        let token = if rest.peek().is_some() { self.token(&last) } else { String::new() };
        (page, token)
    }

    /// Returns whether `count` items of `bytes` in all are more than it has.
    pub fn is_beyond(&self, count: usize, bytes: usize) -> bool {
        count > self.size || count > 1 && bytes > PAGE_BYTES
    }

    fn token(&self, key: &str) -> String {
        let mut bytes = self.checksum(key).to_vec();
        bytes.extend(key.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn checksum(&self, key: &str) -> [u8; CHECKSUM_BYTES] {
        let parts = [self.list, "\0", self.filter, "\0", key].map(str::as_bytes);
        let digest = Digest::of(DOMAIN, &parts);
        let (checksum, _) = digest.as_bytes().split_first_chunk().expect("32 is more than 16");
        *checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> impl Iterator<Item = (String, u32)> {
        (0..7).map(|number| (format!("{number:03}"), number))
    }

    #[test]
    fn pages_give_each_item_once_and_in_order() {
        let mut token = String::new();
        let mut seen = Vec::new();
        loop {
            let page = Page::parse("hosts", "f", 3, &token).unwrap();
            let (items, next) = page.take(items());
            assert!(items.len() <= 3);
            seen.extend(items);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_page_ends_where_its_items_are_too_large_and_never_before_the_first() {
        for (bytes, expected) in [(0, vec![3, 3, 1]), (PAGE_BYTES / 2, vec![2, 2, 2, 1]), (PAGE_BYTES + 1, vec![1; 7])]
        {
            let mut token = String::new();
            let mut counts = Vec::new();
            loop {
                let (items, next) = Page::parse("hosts", "f", 3, &token).unwrap().take_within(items(), |_| bytes);
                counts.push(items.len());
                token = next;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(counts, expected, "{bytes}");
        }
    }

    #[test]
    fn a_token_goes_with_its_list_and_filter_alone() {
        let (_, token) = Page::parse("hosts", "f", 3, "").unwrap().take(items());
        assert!(Page::parse("hosts", "f", 5, &token).is_ok());
        let mut changed = token.clone();
        changed.replace_range(0..1, if token.starts_with('A') { "B" } else { "A" });
        for (list, filter, token) in [
            ("findings", "f", token.as_str()),
            ("hosts", "g", &token),
            ("hosts", "f", &changed),
            ("hosts", "f", "x"),
            ("hosts", "f", "???"),
            ("hosts", "f", &"A".repeat(600)),
        ] {
            assert_eq!(Page::parse(list, filter, 3, token), Err(Error::Token), "{list} {filter} {token}");
        }
    }

    #[test]
    fn the_size_is_bounded_and_never_negative() {
        assert_eq!(Page::parse("hosts", "", -1, ""), Err(Error::Size));
        assert_eq!(Page::parse("hosts", "", 0, "").unwrap().size, 50);
        assert_eq!(Page::parse("hosts", "", 100_000, "").unwrap().size, 1000);
    }
}
