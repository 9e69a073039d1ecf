//! SHA-256 (FIPS 180-4) of several contents at once.
//!
//! A round waits for the one before it, so that a processor with instructions for SHA-256 stands still for half of one content's time
//! or more. The rounds of another content fill that time. Where there are no such instructions, contents are hashed one after the other.

use sha2::block_api::compress256;

/// Contents, at most, that are hashed at once.
pub(super) const AT_ONCE: usize = 4;

const BLOCK_BYTES: usize = 64;
type Block = [u8; BLOCK_BYTES];
/// Section 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The digest of a content so far.
#[derive(Debug)]
pub(super) struct Sha256 {
    state: [u32; 8],
    /// The start of a block whose rest is still to come.
    begun: Block,
    begun_bytes: usize,
    bytes: u64,
}

impl Sha256 {
    pub(super) fn new() -> Self {
        Self { state: START, begun: [0; BLOCK_BYTES], begun_bytes: 0, bytes: 0 }
    }

    /// Takes all of `bytes`.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            update([(self, &mut bytes)]);
        }
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        // Section 5.1.1: a bit, zeroes to the end of a block, and in that end the number of bits.
        let mut end = [0; 2 * BLOCK_BYTES];
        end[0] = 0x80;
        let zeroes = (2 * BLOCK_BYTES - 1 - size_of::<u64>() - self.begun_bytes) % BLOCK_BYTES;
        let length = 1 + zeroes;
        end[length..length + size_of::<u64>()].copy_from_slice(&(self.bytes * 8).to_be_bytes());
        self.update(&end[..length + size_of::<u64>()]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(size_of::<u32>()).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// Takes from the front of `bytes` what fills a begun block, and the rest of a content that is no whole block.
    fn fill(&mut self, bytes: &mut &[u8]) {
        if self.begun_bytes == 0 && bytes.len() >= BLOCK_BYTES {
            return;
        }
        let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.begun_bytes));
        self.begun[self.begun_bytes..][..taken.len()].copy_from_slice(taken);
        self.begun_bytes += taken.len();
        self.bytes += taken.len() as u64;
        *bytes = rest;
        if self.begun_bytes == BLOCK_BYTES {
            compress256(&mut self.state, &[self.begun]);
            self.begun_bytes = 0;
            self.fill(bytes);
        }
    }
}

/// Takes bytes of several contents from the front, as many of each, until one of them has no more.
pub(super) fn update<const N: usize>(mut contents: [(&mut Sha256, &mut &[u8]); N]) {
    for (hash, bytes) in &mut contents {
        hash.fill(bytes);
    }
    let count = contents.iter().map(|(_, bytes)| bytes.len() / BLOCK_BYTES).min().unwrap_or(0);
    if count == 0 {
        return;
    }
    let mut states = [START; N];
    let mut blocks: [&[Block]; N] = [&[]; N];
    for (at, (hash, bytes)) in contents.iter_mut().enumerate() {
        let (taken, rest) = bytes.split_at(count * BLOCK_BYTES);
        (states[at], blocks[at]) = (hash.state, taken.as_chunks().0);
        hash.bytes += taken.len() as u64;
        **bytes = rest;
    }
    compress(&mut states, blocks);
    for ((hash, bytes), state) in contents.iter_mut().zip(states) {
        hash.state = state;
        hash.fill(bytes);
    }
}

/// Takes blocks of several contents, as many of each.
fn compress<const N: usize>(states: &mut [[u32; 8]; N], blocks: [&[Block]; N]) {
    #[cfg(target_arch = "x86_64")]
    if N > 1 && x86::is_able() {
        return x86::compress(states, blocks);
    }
    states.iter_mut().zip(blocks).for_each(|(state, blocks)| compress256(state, blocks));
}

/// With the SHA extensions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter "Intel SHA Extensions".
#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(unsafe_code)]

    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x, _mm_setr_epi32,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
        _mm_storeu_si128,
    };

    use super::Block;

    /// FIPS 180-4, section 4.2.2, four to a step.
    #[rustfmt::skip]
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// Returns whether this processor has what [`compress`] needs.
    pub(super) fn is_able() -> bool {
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
    }

    /// Takes blocks of several contents, as many of each; where [`is_able`].
    pub(super) fn compress<const N: usize>(states: &mut [[u32; 8]; N], blocks: [&[Block]; N]) {
        assert!(is_able());
        // SAFETY: the processor has the instructions.
        unsafe { interleave(states, blocks) }
    }

    /// The working variables, in the order of the instructions, and the last sixteen words of the message schedule.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
        words: [__m128i; 4],
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn interleave<const N: usize>(states: &mut [[u32; 8]; N], blocks: [&[Block]; N]) {
        let mut lanes = states.map(|state| load_state(&state));
        let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        for at in 0..count {
            let before = lanes;
            for (lane, blocks) in lanes.iter_mut().zip(blocks) {
                lane.words = load_block(&blocks[at]);
            }
            for step in 0..4 {
                rounds(&mut lanes, step);
            }
            for step in 4..16 {
                for Lane { words, .. } in &mut lanes {
                    let [oldest, second, third, last] = [0, 1, 2, 3].map(|age| words[(step + age) % 4]);
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, second), _mm_alignr_epi8::<4>(last, third));
                    words[step % 4] = _mm_sha256msg2_epu32(sum, last);
                }
                rounds(&mut lanes, step);
            }
            for (lane, before) in lanes.iter_mut().zip(before) {
                lane.abef = _mm_add_epi32(lane.abef, before.abef);
                lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
            }
        }
        for (state, lane) in states.iter_mut().zip(lanes) {
            store_state(state, lane);
        }
    }

    /// Does four rounds of every lane; each kind of instruction for all of them, so that none waits for its own.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn rounds<const N: usize>(lanes: &mut [Lane; N], step: usize) {
        let [first, second, third, fourth] = ROUNDS[step].map(u32::cast_signed);
        let constants = _mm_setr_epi32(first, second, third, fourth);
        let mut words = [constants; N];
        for (words, lane) in words.iter_mut().zip(lanes.iter()) {
            *words = _mm_add_epi32(lane.words[step % 4], constants);
        }
        for (words, lane) in words.iter().zip(lanes.iter_mut()) {
            lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, *words);
        }
        for (words, lane) in words.iter().zip(lanes.iter_mut()) {
            lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, _mm_shuffle_epi32::<0x0e>(*words));
        }
    }

    #[inline]
    #[target_feature(enable = "ssse3")]
    fn load_block(block: &Block) -> [__m128i; 4] {
        // Words are big-endian.
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (parts, _) = block.as_chunks::<16>();
        [0, 1, 2, 3].map(|at| {
            let part: &[u8; 16] = &parts[at];
            // SAFETY: sixteen bytes are read, wherever they begin.
            _mm_shuffle_epi8(unsafe { _mm_loadu_si128(part.as_ptr().cast()) }, order)
        })
    }

    #[inline]
    #[target_feature(enable = "ssse3,sse4.1")]
    fn load_state(state: &[u32; 8]) -> Lane {
        let (halves, _) = state.as_chunks::<4>();
        // SAFETY: sixteen bytes are read of each half, wherever they begin.
        let [abcd, efgh] = [0, 1].map(|at| unsafe { _mm_loadu_si128(halves[at].as_ptr().cast()) });
        let (badc, hgfe) = (_mm_shuffle_epi32::<0xb1>(abcd), _mm_shuffle_epi32::<0x1b>(efgh));
        let (abef, cdgh) = (_mm_alignr_epi8::<8>(badc, hgfe), _mm_blend_epi16::<0xf0>(hgfe, badc));
        Lane { abef, cdgh, words: [abcd; 4] }
    }

    #[inline]
    #[target_feature(enable = "ssse3,sse4.1")]
    fn store_state(state: &mut [u32; 8], lane: Lane) {
        let (feba, dchg) = (_mm_shuffle_epi32::<0x1b>(lane.abef), _mm_shuffle_epi32::<0xb1>(lane.cdgh));
        let halves = [_mm_blend_epi16::<0xf0>(feba, dchg), _mm_alignr_epi8::<8>(dchg, feba)];
        let (parts, _) = state.as_chunks_mut::<4>();
        for (part, half) in parts.iter_mut().zip(halves) {
            // SAFETY: sixteen bytes are written, wherever they begin.
            unsafe { _mm_storeu_si128(part.as_mut_ptr().cast(), half) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    fn expected(bytes: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(bytes).into()
    }

    #[test]
    fn contents_of_every_length_around_a_block_have_their_digest() {
        let bytes: Vec<u8> = (0..300_u16).map(|at| (at % 251) as u8).collect();
        for length in 0..bytes.len() {
            let mut hash = Sha256::new();
            hash.update(&bytes[..length]);
            assert_eq!(hash.finish(), expected(&bytes[..length]), "{length} bytes");
        }
    }

    /// Hashes contents that come in pieces, `N` at once as long as there are so many.
    fn together<const N: usize>(contents: &[Vec<Vec<u8>>; N]) -> [[u8; 32]; N] {
        let mut hashes: [Sha256; N] = std::array::from_fn(|_| Sha256::new());
        let mut pieces: [Vec<&[u8]>; N] =
            std::array::from_fn(|at| contents[at].iter().map(Vec::as_slice).rev().collect());
        let mut left: [&[u8]; N] = [&[]; N];
        loop {
            for (left, pieces) in left.iter_mut().zip(&mut pieces) {
                while left.is_empty()
                    && let Some(piece) = pieces.pop()
                {
                    *left = piece;
                }
            }
            if left.iter().any(|left| left.is_empty()) {
                break;
            }
            let mut both = hashes.iter_mut().zip(left.iter_mut());
            update(std::array::from_fn::<_, N, _>(|_| both.next().unwrap()));
            assert!(left.iter().any(|left| left.is_empty()), "one is used up");
        }
        for ((hash, left), pieces) in hashes.iter_mut().zip(left).zip(pieces) {
            hash.update(left);
            pieces.iter().rev().for_each(|piece| hash.update(piece));
        }
        hashes.map(Sha256::finish)
    }

    fn content() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let lengths = prop_oneof![0..200_usize, Just(64), Just(4096), 0..5000_usize];
        let piece = (lengths, any::<u8>(), 1..=255_u8).prop_map(|(length, first, step)| {
            (0..length)
                .map(|at| first.wrapping_add((at as u8).wrapping_mul(step)).rotate_left((at / 256) as u32))
                .collect()
        });
        proptest::collection::vec(piece, 0..5)
    }

    proptest! {
        #[test]
        fn contents_that_are_hashed_at_once_have_the_digests_that_they_have_alone(
            contents in [content(), content(), content(), content()]
        ) {
            let alone = contents.each_ref().map(|pieces| expected(&pieces.concat()));
            prop_assert_eq!(together(&contents), alone);
            let [a, b, c, d] = contents;
            prop_assert_eq!(together(&[a, b, c]), [alone[0], alone[1], alone[2]]);
            prop_assert_eq!(together(&[d]), [alone[3]]);
        }

        #[test]
        fn two_contents_are_hashed_at_once(contents in [content(), content()]) {
            let alone = contents.each_ref().map(|pieces| expected(&pieces.concat()));
            prop_assert_eq!(together(&contents), alone);
        }
    }
}
