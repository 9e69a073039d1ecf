//! Cuts lists into pages (AIP-158). A token names the list and the last key of the page before it. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_proto::time::Timestamp;
use tonic::Status;

use crate::serve::status::{self, Reason};

const DEFAULT_SIZE: usize = 50;
const MOST: usize = 1000;

/// Returns the key of an item that was made at `created` and has this id; keys are ordered as the list is.
pub fn key(created: Timestamp, id: &[u8]) -> Vec<u8> {
    [&created.micros().to_be_bytes(), id].concat()
}

/// Returns the page of `items`, which are in order of `key`, that follows `token`, and the token of the next one.
///
/// # Errors
///
/// INVALID_ARGUMENT (PAGE_SIZE_INVALID, PAGE_TOKEN_INVALID).
pub fn cut<T>(
    list: &str,
    size: i32,
    token: &str,
    mut items: Vec<T>,
    key: impl Fn(&T) -> Vec<u8>,
) -> Result<(Vec<T>, String), Status> {
    let size = match usize::try_from(size) {
        Ok(0) => DEFAULT_SIZE,
        Ok(size) => size.min(MOST),
        Err(_) => return Err(status::invalid(Reason::PageSizeInvalid, "page_size", "it must not be negative")),
    };
    if !token.is_empty() {
        let last = last_key(list, token).ok_or_else(|| {
            status::invalid(
                Reason::PageTokenInvalid,
                "page_token",
                "it is none of this list; begin with the first page",
            )
        })?;
        items.retain(|item| key(item) > last);
    }
    let is_last = items.len() <= size;
    items.truncate(size);
    let next = match items.last() {
        Some(item) if !is_last => URL_SAFE_NO_PAD.encode([list.as_bytes(), &[0], &key(item)].concat()),
        _ => String::new(),
    };
    Ok((items, next))
}

fn last_key(list: &str, token: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    bytes.strip_prefix(list.as_bytes())?.strip_prefix(&[0]).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: i32, token: &str, items: &[u8]) -> Result<(Vec<u8>, String), Status> {
        cut("List", size, token, items.to_vec(), |item| vec![*item])
    }

    #[test]
    fn pages_hold_each_item_once_also_when_the_list_grows_between() {
        let (first, token) = page(2, "", &[1, 3, 5, 7]).unwrap();
        assert_eq!(first, [1, 3]);
        let (second, token) = page(2, &token, &[1, 2, 3, 5, 7]).unwrap();
        assert_eq!((second.as_slice(), token.as_str()), (&[5, 7][..], ""));
    }

    #[test]
    fn sizes_and_tokens_outside_the_contract_are_refused_or_held() {
        assert_eq!(page(0, "", &[1; 60]).unwrap().0.len(), 50);
        assert_eq!(page(5000, "", &[1; 200]).unwrap().0.len(), 200);
        assert!(page(-1, "", &[]).unwrap_err().message().starts_with("page_size"));
        let foreign = cut("Other", 1, "", vec![1_u8, 2], |item| vec![*item]).unwrap().1;
        for token in ["x", "%%%", &foreign] {
            assert!(page(1, token, &[1, 2]).unwrap_err().message().starts_with("page_token"), "{token}");
        }
    }
}
