//! A bit for each frame of a pack.

/// Bits, all clear at first; it grows to the highest that is set.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Whether a bit is set.
    pub(super) fn get(&self, bit: u32) -> bool {
        self.words.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets a bit; whether it was clear.
    pub(super) fn set(&mut self, bit: u32) -> bool {
        let word = bit as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let was_clear = !self.get(bit);
        self.words[word] |= 1 << (bit % 64);
        was_clear
    }
}
