//! Lists over all their pages.

/// Items asked for at once.
pub const PAGE_SIZE: i32 = 500;

/// Follows the pages of a list until it ends or `limit` items are there.
///
/// `$fetch` takes a page size and a page token and gives a future of the answer; `$items` is the field of the answer that holds
/// the items.
macro_rules! all_pages {
    ($connection:expr, $limit:expr, $items:ident, |$size:ident, $token:ident| $fetch:expr) => {{
        let limit: usize = $limit.unwrap_or(usize::MAX);
        let mut all = Vec::new();
        let mut $token = String::new();
        loop {
            let left = limit.saturating_sub(all.len());
            if left == 0 {
                break;
            }
            let $size = i32::try_from(left).unwrap_or(i32::MAX).min($crate::ctl::pages::PAGE_SIZE);
            let answer = $fetch.await.map_err(|status| $connection.fault(&status))?.into_inner();
            all.extend(answer.$items);
            if answer.next_page_token.is_empty() {
                break;
            }
            if answer.next_page_token == $token {
                return Err($crate::ctl::Error::Contract("a page's next token is its own"));
            }
            $token = answer.next_page_token;
        }
        all.truncate(limit);
        all
    }};
}

pub(super) use all_pages;
