//! Bytes read as what a target needs. An input that has ended gives zeros and empty texts, for ever.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The whole input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number from 0 to `below` - 1.
    pub fn below(&mut self, below: usize) -> usize {
        usize::from(self.byte()) % below.max(1)
    }

    /// A number of 64 bits: more often than not one at which something changes.
    pub fn number(&mut self) -> i64 {
        const EDGES: [i64; 10] =
            [0, 1, -1, i64::MIN, i64::MAX, i64::MAX - 1, i32::MAX as i64, u32::MAX as i64, 1 << 62, -1000];
        match self.below(16) {
            edge @ 0..10 => EDGES[edge],
            10..13 => i64::from(self.byte()),
            _ => i64::from_le_bytes(self.take(8).try_into().unwrap_or([7; 8])),
        }
    }

    /// Up to this many bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece: one byte says how long it is.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        self.take(length)
    }

    /// A piece as text, what is not UTF-8 replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
