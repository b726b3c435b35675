//! The Mersenne Twister MT19937 with its 32-bit output (Matsumoto and Nishimura, 1998), seeded by one 32-bit word.

/// Words of state.
const N: usize = 624;
/// Distance of the word that each new word is mixed with.
const M: usize = 397;
/// The last row of the twist matrix.
const MATRIX_A: u32 = 0x9908_b0df;

/// State of the generator; the same seed gives the same words for ever.
#[derive(Debug, Clone)]
pub(super) struct Mt19937 {
    state: [u32; N],
    /// Words of `state` already handed out.
    used: usize,
}

impl Mt19937 {
    /// Fills the state from one word, with the recurrence of the authors' 2002 initialisation.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, used: N }
    }

    /// The next word of the stream.
    pub(super) fn next_u32(&mut self) -> u32 {
        if self.used == N {
            self.twist();
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Replaces the whole state by the next 624 words.
    fn twist(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let mixed = if joined & 1 == 1 { MATRIX_A } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ mixed;
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Mt19937;

    /// The C++ standard ([rand.predef]) fixes the 10000th word of `std::mt19937` with its default seed.
    #[test]
    fn ten_thousandth_word_is_the_standards() {
        let mut engine = Mt19937::new(5489);
        let word = (0..10_000).map(|_| engine.next_u32()).last();
        assert_eq!(word, Some(4_123_659_995));
    }
}
