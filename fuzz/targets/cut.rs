//! How the network cuts what a client sends: for the targets whose input is a client's bytes.

/// Up to eight pieces at places that depend on all of the input.
pub fn cut(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    // FNV-1a of the input, then a xorshift generator.
    let seed = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut random = seed | 1;
    let mut at = [0, 0, 0, 0, 0, 0, 0, 0, input.len()];
    for place in &mut at[1..8] {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *place = (random % (input.len() as u64 + 1)) as usize;
    }
    at.sort_unstable();
    (0..8).map(move |piece| &input[at[piece]..at[piece + 1]])
}
