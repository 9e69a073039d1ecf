//! Lists of a fact: what has no room is only counted, and very many entries of one part hide none of another.
//!
//! A part is what one watch set covers below one root, and in it what belongs to one owner: whoever may write in a home can make
//! any number of changes there, all of them of their own.

use std::collections::BTreeMap;

use muster_proto::limits;

/// A part of what is watched.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Part {
    /// Number of the root.
    pub root: usize,
    /// Number of the watch set that speaks.
    pub set: usize,
    /// Owner of the entry, as far as it is known.
    pub owner: u32,
}

/// Items of a list, of which each part has a fair share. The same items in the same order leave the same list.
#[derive(Debug)]
pub struct Shares<T> {
    limit_bytes: usize,
    /// What an item counts, at least: so that no more than the list may have add up to the limit.
    least_bytes: usize,
    bytes: usize,
    /// Bytes of each root and set.
    sets: BTreeMap<(usize, usize), usize>,
    parts: BTreeMap<Part, Share<T>>,
}

#[derive(Debug)]
struct Share<T> {
    bytes: usize,
    items: Vec<(T, usize)>,
}

impl<T> Shares<T> {
    /// Returns an empty list of at most `items`, and of that many times `usual_bytes`: where items are larger, there are fewer.
    pub fn new(items: usize, usual_bytes: usize) -> Self {
        let (sets, parts) = (BTreeMap::new(), BTreeMap::new());
        Self { limit_bytes: items * usual_bytes, least_bytes: usual_bytes, bytes: 0, sets, parts }
    }

    /// Takes an item of `bytes`. Where it has no room, the part that takes most gives up its last; one that is larger than a change
    /// may be is not taken.
    pub fn add(&mut self, part: Part, item: T, bytes: usize) {
        if bytes > limits::FILE_CHANGE_BYTES {
            return;
        }
        let bytes = bytes.max(self.least_bytes);
        let share = self.parts.entry(part).or_insert_with(|| Share { bytes: 0, items: Vec::new() });
        share.items.push((item, bytes));
        share.bytes += bytes;
        *self.sets.entry((part.root, part.set)).or_default() += bytes;
        self.bytes += bytes;
        while self.bytes > self.limit_bytes {
            self.give_up();
        }
    }

    /// Returns the items, those of one part after those of another.
    pub fn into_items(self) -> impl Iterator<Item = T> {
        self.parts.into_values().flat_map(|share| share.items).map(|(item, _)| item)
    }

    fn give_up(&mut self) {
        // The owner with most, of the root and set with most.
        let Some((&(root, set), _)) = self.sets.iter().max_by_key(|(_, bytes)| **bytes) else { return };
        let owners = self.parts.range_mut(Part { root, set, owner: 0 }..=Part { root, set, owner: u32::MAX });
        let Some((&part, share)) = owners.max_by_key(|(_, share)| share.bytes) else { return };
        let bytes = share.items.pop().map_or(0, |(_, bytes)| bytes);
        share.bytes -= bytes;
        if share.items.is_empty() {
            self.parts.remove(&part);
        }
        self.bytes -= bytes;
        self.sets.entry((root, set)).and_modify(|all| *all -= bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(root: usize, set: usize, owner: u32) -> Part {
        Part { root, set, owner }
    }

    fn left(list: Shares<&'static str>) -> BTreeMap<&'static str, usize> {
        list.into_items().fold(BTreeMap::new(), |mut counts, item| {
            *counts.entry(item).or_default() += 1;
            counts
        })
    }

    #[test]
    fn a_flood_of_one_part_leaves_every_other_its_share() {
        let parts = [
            ("flood", part(1, 0, 1000), 5000),
            ("same set", part(1, 0, 0), 20),
            ("same root", part(1, 1, 1000), 30),
            ("other root", part(2, 0, 0), 40),
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]] {
            let mut list = Shares::new(1000, 960);
            for at in order {
                let (name, part, count) = parts[at];
                (0..count).for_each(|_| list.add(part, name, 500));
            }
            let left = left(list);
            assert_eq!(left, [("flood", 910), ("other root", 40), ("same root", 30), ("same set", 20)].into());
        }
    }

    #[test]
    fn owners_share_what_their_set_has_and_no_more() {
        let mut list = Shares::new(100, 10);
        (0..1000).for_each(|owner| list.add(part(0, 0, 100_000 + owner), "flood", 10));
        (0..60).for_each(|_| list.add(part(0, 1, 0), "other", 10));
        list.add(part(0, 0, 0), "root's", 10);
        assert_eq!(left(list), [("flood", 49), ("other", 50), ("root's", 1)].into());
    }

    #[test]
    fn large_items_take_the_room_of_several_and_one_beyond_the_limit_of_a_change_has_none() {
        let mut list = Shares::new(1000, 960);
        (0..1000).for_each(|_| list.add(part(0, 0, 1000), "large", 9600));
        list.add(part(1, 0, 0), "other", 60_000);
        list.add(part(1, 0, 0), "too large", limits::FILE_CHANGE_BYTES + 1);
        assert_eq!(left(list), [("large", 93), ("other", 1)].into());
    }
}
