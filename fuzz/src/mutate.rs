//! Damage, the same for the same seed.

/// xorshift64*, after Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() >> 16) as usize % bound.max(1)
    }
}

/// Numbers at which arithmetic and loops end badly.
const WORDS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];
const TEXTS: [&str; 11] = [
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "9223372036854775807",
    "1e308",
    "NaN",
    "\n",
    "\u{1b}[2J",
    "';$(id)\n",
];

/// Damages `bytes` in one to four places; `other` is another sound input, parts of which may be put in.
pub fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let scale = random.below(12);
        let length = 1 + random.below(1 << scale);
        let end = at.saturating_add(length).min(bytes.len());
        match random.below(10) {
            0 => change(bytes, at, |byte| byte ^ (1 << (length % 8))),
            1 => change(bytes, at, |_| length as u8),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let part = &other[from..from.saturating_add(length).min(other.len())];
                bytes.splice(at..end, part.iter().copied());
            }
            6 | 7 => {
                let word = WORDS[random.below(WORDS.len())];
                let word = if random.below(2) == 0 { word.to_le_bytes() } else { word.to_be_bytes() };
                let size = 1 << random.below(4);
                // Fields of the kernel stand at multiples of their size.
                let at = at - at % size;
                let word = &word[..size];
                for (byte, new) in bytes.iter_mut().skip(at).zip(word) {
                    *byte = *new;
                }
            }
            _ => number(bytes, at, TEXTS[random.below(TEXTS.len())]),
        }
    }
}

fn change(bytes: &mut [u8], at: usize, to: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

/// Puts a text in the place of the first number at or behind `at`.
fn number(bytes: &mut Vec<u8>, at: usize, text: &str) {
    let Some(start) = bytes.iter().skip(at).position(u8::is_ascii_digit).map(|behind| at + behind) else { return };
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.splice(start..start + length, text.bytes());
}
