//! New inputs from old ones, and from nothing.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Choices from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, below: usize) -> usize {
        (self.bits() % below.max(1) as u64) as usize
    }
}

/// The longest input.
const LONGEST: usize = 4_096;

/// An input: one of the corpus, changed a few times, or words and bytes without any model.
pub fn input(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => (0..random.below(400)).map(|_| random.bits() as u8).collect(),
        1 => {
            let mut bytes = Vec::new();
            for _ in 0..random.below(20) {
                bytes.extend_from_slice(&piece(random, words));
            }
            bytes
        }
        _ if corpus.is_empty() => (0..random.below(64)).map(|_| random.bits() as u8).collect(),
        _ => corpus[random.below(corpus.len())].clone(),
    };
    for _ in 0..random.below(8) {
        change(random, &mut bytes, corpus, words);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.bits() as u8,
        2 => {
            let end = (at + random.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => {
            let end = (at + random.below(32)).min(bytes.len());
            let copied = bytes[at..end].to_vec();
            bytes.splice(at..at, copied);
        }
        4 if !corpus.is_empty() => {
            let other = &corpus[random.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        _ => {
            let new = piece(random, words);
            bytes.splice(at..at, new);
        }
    }
}

fn piece(random: &mut Random, words: &[&str]) -> Vec<u8> {
    if words.is_empty() || random.below(4) == 0 {
        return (0..=random.below(4)).map(|_| random.bits() as u8).collect();
    }
    words[random.below(words.len())].as_bytes().to_vec()
}
