//! Chance that can be repeated: the seed is fixed, is printed when a test fails, and another one
//! comes from `COHERENCE_SEED`.

/// The variable that holds another seed.
const VARIABLE: &str = "COHERENCE_SEED";

/// The seed of this run.
pub fn seed() -> u64 {
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is not a number: {text}")),
        Err(_) => 20_259,
    }
}

/// How to run the same again, for messages of failed tests.
pub fn again() -> String {
    format!("{VARIABLE}={}", seed())
}

/// SplitMix64: small, and good enough to shuffle with.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of one user of chance; each has a stream of its own.
    pub fn of(stream: u64) -> Self {
        let mut rng = Self(seed() ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.next();
        rng
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }
}
