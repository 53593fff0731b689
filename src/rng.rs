//! Random numbers as a pure function: `value = f(seed, purpose, a, b, index)`.
//!
//! A generator that is passed around has a hidden state: who asks first gets another number, a
//! resumed run must replay everything that was drawn, and two threads race for the next value.
//! Here nothing is passed around. Whoever needs numbers opens a [`Stream`] by *saying what they are
//! for*: the run's seed, a [`Purpose`] and two counters such as the epoch and the example. The
//! same words give the same numbers, in any order, on any thread, in any process. The position of a
//! training run (epoch, step) therefore *is* its random state, and that is all a checkpoint stores.
//!
//! The function is ChaCha with 8 rounds (Bernstein, "ChaCha, a variant of Salsa20", 2008). The four
//! numbers that name a stream fill its 256-bit key exactly, so that two different names can never
//! collide by accident; word `i` of the key stream is value `i`:
//!
//! ```text
//! key   = seed (8 bytes) | purpose (8) | a (8) | b (8)        little-endian
//! word  = ChaCha8(key, nonce 0)[index]                        one u32 per value
//! ```
//!
//! Everything made of the words uses only integer arithmetic and `+ - * / sqrt`, which IEEE 754
//! rounds in one way only. Values are the same on every machine, and they are locked by a test: a
//! seed printed today means the same run for ever.
//!
//! ```
//! use ferrotape::rng::{Purpose, Stream};
//!
//! let mut coin = Stream::new(7, Purpose::User(0), 0, 0);
//! let first = [coin.next_u32(), coin.next_u32()];
//! coin.seek(1); // value 1 again, without drawing value 0
//! assert_eq!(coin.next_u32(), first[1]);
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What random numbers are for. Each purpose has streams of its own, so that drawing more numbers
/// for one (say, a larger dropout mask) changes nothing about another (the order of examples).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial weights; `a` is a hash of the parameter's name.
    Init,
    /// The order of the examples; `a` is the epoch.
    Shuffle,
    /// Which example goes to training, validation or test; `a` is the class.
    Split,
    /// Dropout masks; `a` is the step, `b` counts the random operations of the step.
    Dropout,
    /// Augmentation; `a` is the epoch, `b` the example's index in its data set.
    Augment,
    /// The sample of the training data that is evaluated along with the validation data.
    Probe,
    /// Whatever a user needs; the number keeps one use apart from another.
    User(u32),
}

impl Purpose {
    /// The number that goes into the key. Part of the promise: never renumber.
    fn code(self) -> u64 {
        match self {
            Purpose::Init => 1,
            Purpose::Shuffle => 2,
            Purpose::Split => 3,
            Purpose::Dropout => 4,
            Purpose::Augment => 5,
            Purpose::Probe => 6,
            Purpose::User(n) => 1 << 32 | u64::from(n),
        }
    }
}

/// The sequence of random values that belongs to one `(seed, purpose, a, b)`.
///
/// Opening a stream costs nothing; the first value costs one call of ChaCha8 (256 bytes at once).
#[derive(Debug, Clone)]
pub struct Stream {
    words: ChaCha8Rng,
}

impl Stream {
    /// Opens the stream named by these four numbers, at value 0. [`Purpose`] says what `a` and `b`
    /// usually are; use 0 for one that means nothing.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose.code(), a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Stream { words: ChaCha8Rng::from_seed(key) }
    }

    /// Continues at word `index`, counted from the beginning of the stream.
    ///
    /// Everything that takes one word per value ([`next_u32`](Self::next_u32),
    /// [`next_f32`](Self::next_f32), [`uniform`](Self::uniform), [`normal`](Self::normal),
    /// [`bernoulli`](Self::bernoulli) and the `fill_` methods) can so be computed in pieces, in any
    /// order: seek to the first element of the piece and fill it.
    pub fn seek(&mut self, index: u64) {
        self.words.set_word_pos(index.into());
    }

    /// The next word. Takes one word.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.words.next_u32()
    }

    /// The next 64 bits, low half first. Takes two words.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let low = self.next_u32();
        u64::from(self.next_u32()) << 32 | u64::from(low)
    }

    /// Uniform in `[0, 1)`: a multiple of 2^-24, as fine as an `f32` below 1 can be. Takes one
    /// word.
    #[inline]
    pub fn next_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform between `low` and `high`; `high` itself is reached only by rounding. Takes one word.
    #[inline]
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next_f32()
    }

    /// Normal with mean 0 and standard deviation 1, within ±6.3. Takes one word.
    ///
    /// The inverse of the distribution function at a uniform probability. The usual Box-Muller
    /// transform would need the system's `ln` and `cos`, whose last bit differs between machines.
    #[inline]
    pub fn normal(&mut self) -> f32 {
        // The middle of one of 2^32 equal slices of (0, 1): never 0, never 1, symmetric about 1/2.
        let p = (f64::from(self.next_u32()) + 0.5) * (1.0 / (1u64 << 32) as f64);
        inverse_normal(p) as f32
    }

    /// True with probability `p`, exact to 2^-32; never for `p <= 0`, always for `p >= 1`. Takes
    /// one word.
    #[inline]
    pub fn bernoulli(&mut self, p: f32) -> bool {
        u64::from(self.next_u32()) < threshold(p)
    }

    /// Uniform in `0..n`, without bias. Takes two words (or, with probability `n / 2^64`, more).
    ///
    /// Lemire, "Fast Random Integer Generation in an Interval" (2019): the high half of `word * n`,
    /// rejecting the few low halves that would make some results more likely than others.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below: there is no number below 0");
        let n = n as u64;
        let rejected = n.wrapping_neg() % n; // 2^64 mod n
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as usize;
            }
        }
    }

    /// Puts `items` in random order, every order being equally likely (Fisher-Yates, from the
    /// back).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Fills `out` with [`uniform`](Self::uniform) values.
    pub fn fill_uniform(&mut self, out: &mut [f32], low: f32, high: f32) {
        out.fill_with(|| self.uniform(low, high));
    }

    /// Fills `out` with normal values of the given mean and standard deviation.
    pub fn fill_normal(&mut self, out: &mut [f32], mean: f32, std: f32) {
        out.fill_with(|| mean + std * self.normal());
    }

    /// Fills `out` with `value` where a coin of probability `p` says so, and 0 elsewhere. A dropout
    /// mask that drops with probability `q` is `fill_bernoulli(mask, 1.0 - q, 1.0 / (1.0 - q))`.
    pub fn fill_bernoulli(&mut self, out: &mut [f32], p: f32, value: f32) {
        let (threshold, value) = (threshold(p) as i64, value.to_bits());
        out.fill_with(|| {
            // All ones below the threshold, else all zeros: a branch would be random by design,
            // and a processor cannot predict it.
            let mask = (i64::from(self.next_u32()) - threshold) >> 63;
            f32::from_bits(value & mask as u32)
        });
    }
}

/// How many of the 2^32 words mean "yes" for a coin of probability `p`.
fn threshold(p: f32) -> u64 {
    (f64::from(p) * (1u64 << 32) as f64) as u64 // a cast of a negative number or NaN gives 0
}

/// The `x` with `P(normal <= x) = p`, for `p` in `[2^-33, 1 - 2^-33]`, to about 7 digits.
///
/// Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution" (1988), routine
/// PPND7: one rational function in the middle, another in the tails. Its third one, for the far
/// tails (`p < e^-25`), is out of reach here.
fn inverse_normal(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        let top = ((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179;
        let bottom = ((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0;
        return q * top / bottom;
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-ln(tail)).sqrt() - 1.6;
    let top = ((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777;
    let bottom = (0.12021132975 * r + 0.73700164250) * r + 1.0;
    (top / bottom).copysign(q)
}

/// The natural logarithm of a normal positive number, the same bits on every machine.
///
/// With `x = 2^e m` and `m` around 1, `ln x = e ln 2 + 2 artanh((m - 1) / (m + 1))`; the power
/// series of `artanh` is cut where a term is below 1e-12.
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & MANTISSA | 1.0f64.to_bits());
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let series = (0..8).rev().fold(0.0, |sum, k| sum * t2 + 1.0 / f64::from(2 * k + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * t * series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(a: u64, b: u64) -> Stream {
        Stream::new(42, Purpose::User(1), a, b)
    }

    /// ChaCha8, straight from the paper: what a stream's words are by definition.
    fn chacha8_block(key: [u32; 8], counter: u64) -> [u32; 16] {
        let mut start = [0; 16];
        start[..4].copy_from_slice(&[0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
        start[4..12].copy_from_slice(&key);
        start[12] = counter as u32;
        start[13] = (counter >> 32) as u32;
        let mut x = start;
        let mut quarter = |[a, b, c, d]: [usize; 4]| {
            for [p, q, r, by] in [[a, b, d, 16], [c, d, b, 12], [a, b, d, 8], [c, d, b, 7]] {
                x[p] = x[p].wrapping_add(x[q]);
                x[r] = (x[r] ^ x[p]).rotate_left(by as u32);
            }
        };
        for _ in 0..4 {
            for i in 0..4 {
                quarter([i, i + 4, i + 8, i + 12]);
            }
            for i in 0..4 {
                quarter([i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12]);
            }
        }
        std::array::from_fn(|i| x[i].wrapping_add(start[i]))
    }

    #[test]
    fn words_are_chacha8_of_the_name() {
        let (seed, a, b) = (0x0123_4567_89ab_cdef, 5, u64::MAX - 1);
        let key = [seed, 4, a, b].map(|w| [w as u32, (w >> 32) as u32]).concat();
        let key: [u32; 8] = key.try_into().unwrap();
        let mut stream = Stream::new(seed, Purpose::Dropout, a, b);
        for block in 0..10 {
            for word in chacha8_block(key, block) {
                assert_eq!(stream.next_u32(), word);
            }
        }
        stream.seek((1 << 36) + 3); // block 2^32: the counter's high half
        assert_eq!(stream.next_u32(), chacha8_block(key, 1 << 32)[3]);
    }

    #[test]
    fn golden_values_never_change() {
        let purposes = [
            (Purpose::Init, 3715937880),
            (Purpose::Shuffle, 1188757468),
            (Purpose::Split, 3444441023),
            (Purpose::Dropout, 3942397502),
            (Purpose::Augment, 3279803366),
            (Purpose::Probe, 431448405),
            (Purpose::User(0), 4220930753),
            (Purpose::User(u32::MAX), 853592344),
        ];
        for (purpose, word) in purposes {
            assert_eq!(Stream::new(1, purpose, 2, 3).next_u32(), word, "{purpose:?}");
        }
        let mut s = user(0, 0);
        let reals = [s.next_f32(), s.uniform(-3.0, 5.0), s.normal(), s.normal()];
        assert_eq!(reals.map(f32::to_bits), [0x3f4fb4cc, 0xc033c448, 0xbe95ddc8, 0x3fdce42f]);
        assert_eq!([s.below(10), s.below(1000), s.below(1 << 20)], [3, 320, 661080]);
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        s.shuffle(&mut items);
        assert_eq!(items, [3, 5, 1, 0, 2, 6, 7, 4]);
        assert_eq!(s.next_u64(), 0x209b_be50_c57c_f371);
    }

    #[test]
    fn any_piece_can_be_filled_alone() {
        let mut whole = [0.0; 300];
        user(1, 2).fill_normal(&mut whole, 0.0, 1.0);
        for (start, end) in [(0, 1), (1, 64), (63, 65), (64, 128), (200, 300), (299, 300)] {
            let mut piece = vec![0.0; end - start];
            let mut stream = user(1, 2);
            stream.next_u32(); // seeking is absolute
            stream.seek(start as u64);
            stream.fill_normal(&mut piece, 0.0, 1.0);
            assert_eq!(piece, whole[start..end]);
        }
    }

    #[test]
    fn uniform_values_fill_the_interval_evenly() {
        let n = 200_000;
        let (mut sum, mut bins) = (0.0, [0u32; 16]);
        let mut stream = user(3, 0);
        for _ in 0..n {
            let x = stream.next_f32();
            assert!((0.0..1.0).contains(&x));
            sum += f64::from(x);
            bins[(x * 16.0) as usize] += 1;
        }
        // Five standard deviations of the mean, and of a bin's count.
        assert!((sum / n as f64 - 0.5).abs() < 5.0 * (1.0 / 12.0 / n as f64).sqrt());
        let (expected, spread) = (n as f64 / 16.0, (n as f64 * 15.0 / 256.0).sqrt());
        for count in bins {
            assert!((f64::from(count) - expected).abs() < 5.0 * spread, "{bins:?}");
        }
    }

    #[test]
    fn normal_values_have_the_moments_and_tails_of_a_normal() {
        let n = 200_000;
        let mut values = vec![0.0; n];
        user(4, 0).fill_normal(&mut values, 0.0, 1.0);
        let moment = |k| values.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n as f64;
        let error = |variance: f64| 5.0 * (variance / n as f64).sqrt();
        assert!(moment(1).abs() < error(1.0));
        assert!((moment(2) - 1.0).abs() < error(2.0));
        assert!(moment(3).abs() < error(15.0));
        assert!((moment(4) - 3.0).abs() < error(96.0));
        for (limit, p) in [(1.0, 0.158655), (2.0, 0.0227501), (3.0, 0.00134990)] {
            for sign in [1.0, -1.0] {
                let beyond = values.iter().filter(|&&x| x * sign > limit).count();
                assert!((beyond as f64 / n as f64 - p).abs() < error(p), "{sign} {limit}");
            }
        }
    }

    #[test]
    fn inverse_normal_agrees_with_tables() {
        let table = [
            (0.5, 0.0),
            (0.6, 0.2533471031357997),
            (0.92, 1.4050715603096329),
            (0.975, 1.959963984540054),
            (0.999, 3.090232306167813),
            (1e-6, -4.753424308822899),
            (1e-9, -5.997807015007686),
        ];
        for (p, x) in table {
            assert!((inverse_normal(p) - x).abs() < 2e-7 * (1.0 + x.abs()), "{p}");
        }
        for (p, next) in [(0.925, 0.9250001), (0.0749999, 0.075)] {
            assert!(inverse_normal(p) < inverse_normal(next), "order is kept where formulas meet");
        }
        for x in [1e-10, 2f64.powi(-33), 0.05, 0.5, 0.707, 0.708, 1.0] {
            assert!((ln(x) - x.ln()).abs() < 1e-12, "ln {x}");
        }
    }

    #[test]
    fn below_is_even_and_shuffles_reach_every_order() {
        let mut stream = user(5, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");

        let mut orders = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            stream.shuffle(&mut items);
            *orders.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(orders.len(), 24);
        assert!(orders.values().all(|&c| c.abs_diff(1000) < 160), "{orders:?}");
    }

    #[test]
    fn coins_are_fair_and_extremes_are_certain() {
        let mut mask = [0.0; 100_000];
        user(6, 0).fill_bernoulli(&mut mask, 0.8, 1.25);
        let kept = mask.iter().filter(|&&m| m == 1.25).count();
        assert_eq!(mask.iter().filter(|&&m| m == 0.0).count(), mask.len() - kept);
        assert!(kept.abs_diff(80_000) < 650, "{kept}");

        let mut stream = user(6, 0);
        assert!(mask.iter().all(|&m| stream.bernoulli(0.8) == (m != 0.0)));
        for (p, answer) in
            [(0.0, false), (-1.0, false), (f32::NAN, false), (1.0, true), (2.0, true)]
        {
            assert!((0..1000).all(|_| stream.bernoulli(p) == answer), "{p}");
        }
    }
}
