//! What the kernel tests share: random numbers, guarded buffers, error bounds, thread pools.
#![allow(dead_code, unreachable_pub)] // each test binary uses some

use ferrotape_kernels::{
    Write,
    isa::{Isa, with_isa},
    par::Work,
};
use std::ops::{Deref, DerefMut};

/// A small counter-based generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }

    /// Uniform in [-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, len: usize) -> Guarded {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Floats with canaries around, as every input and output of the tests: a kernel that reads beyond
/// them gets NaN, one that writes there is caught when they are dropped, or by `check`.
#[derive(Clone)]
pub struct Guarded {
    all: Vec<f32>,
    len: usize,
}

const MARGIN: usize = 40;
const CANARY: u32 = 0x7fc0_1234; // a NaN

impl Guarded {
    pub fn new(from: &[f32]) -> Self {
        from.iter().copied().collect()
    }

    /// For a kernel that overwrites them all.
    pub fn output(len: usize) -> Self {
        std::iter::repeat_n(f32::NAN, len).collect()
    }

    #[track_caller]
    pub fn check(&self, what: &str) {
        let intact = |s: &[f32]| s.iter().all(|x| x.to_bits() == CANARY);
        assert!(intact(&self.all[..MARGIN]), "{what}: wrote before the buffer");
        assert!(intact(&self.all[MARGIN + self.len..]), "{what}: wrote behind the buffer");
    }
}

impl FromIterator<f32> for Guarded {
    fn from_iter<I: IntoIterator<Item = f32>>(from: I) -> Self {
        let mut all = vec![f32::from_bits(CANARY); MARGIN];
        all.extend(from);
        let len = all.len() - MARGIN;
        all.resize(all.len() + MARGIN, f32::from_bits(CANARY));
        Self { all, len }
    }
}

impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[MARGIN..MARGIN + self.len]
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[MARGIN..MARGIN + self.len]
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check("some kernel");
        }
    }
}

pub fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub fn abs(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x).abs()).collect()
}

/// Every element within the bound of a sum of `terms` products: `(terms + 4) u * sum of the
/// absolute products`, with `u = 2^-24` (Higham, "Accuracy and Stability of Numerical Algorithms",
/// section 3.1).
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], magnitude: &[f64], terms: usize) {
    let unit = (terms as f64 + 4.0) * (0.5f64).powi(24);
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let bound = unit * magnitude[i] + 1e-30;
        assert!(
            (f64::from(found) - expected).abs() <= bound,
            "{what}: element {i} is {found}, not {expected} +- {bound:e}"
        );
    }
}

/// Runs `f` on every instruction set of this processor.
pub fn on_every_isa(mut f: impl FnMut(Isa)) {
    for isa in Isa::available() {
        with_isa(isa, || f(isa));
    }
}

/// Asserts that `f`, whose kernels have `work` to do, or more, gives the same bits on 1, 2, 3, 4, 7
/// and 16 threads, on every instruction set.
#[track_caller]
pub fn assert_same_bits(what: &str, work: Work, f: impl Fn() -> Vec<f32> + Sync) {
    on_every_isa(|isa| {
        let bits = |threads| -> Vec<u32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                assert_eq!(work.pieces(), threads, "{what}: too little work to be cut");
                with_isa(isa, &f)
            })
            .iter()
            .map(|x| x.to_bits())
            .collect()
        };
        let one = bits(1);
        for threads in [2, 3, 4, 7, 16] {
            assert!(
                bits(threads) == one,
                "{what}: {threads} threads give other bits on {}",
                isa.name()
            );
        }
    });
}

/// The inner product, in f64.
pub fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Numbers in [-1, 1), a different sequence for each seed.
pub fn random(len: usize, seed: u64) -> Guarded {
    Random(seed).floats(len)
}

/// Runs `f` on a buffer with the given content, between canaries that must survive.
pub fn guarded<T: Copy + PartialEq + std::fmt::Debug>(
    content: &[T],
    canary: T,
    f: impl FnOnce(&mut [T]),
) -> Vec<T> {
    const GUARD: usize = 64;
    let mut buffer = vec![canary; GUARD];
    buffer.extend_from_slice(content);
    buffer.extend_from_slice(&[canary; GUARD]);
    let end = GUARD + content.len();
    f(&mut buffer[GUARD..end]);
    let outside = buffer[..GUARD].iter().chain(&buffer[end..]);
    assert!(outside.copied().all(|v| v == canary), "wrote outside of its buffer");
    buffer[GUARD..end].to_vec()
}

/// Runs a kernel that overwrites a buffer of `len` values: it must not see the old content.
pub fn output(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let y = guarded(&vec![f32::NAN; len], -7e33, f);
    assert!(!y.iter().any(|v| v.abs() == 7e33));
    y
}

/// Runs a kernel with `Write::Set` on garbage and with `Write::Add` on ones, checks that they
/// differ by those ones, and returns what `Set` wrote.
pub fn both_writes(len: usize, f: impl Fn(&mut [f32], Write)) -> Vec<f32> {
    let set = output(len, |dx| f(dx, Write::Set));
    let add = guarded(&vec![1.0; len], -7e33, |dx| f(dx, Write::Add));
    for (i, (&set, &add)) in set.iter().zip(&add).enumerate() {
        let error = (f64::from(add) - f64::from(set) - 1.0).abs();
        let bound = 2e-7 * (2.0 + f64::from(set).abs());
        let same = set.is_nan() && add.is_nan() || set.is_infinite() && add == set;
        assert!(error <= bound || same, "[{i}]: Set {set}, Add to 1 {add}");
    }
    set
}

/// Checks every element: NaN and infinities exactly, others within `absolute + relative *
/// |expected|`.
#[track_caller]
pub fn assert_near(actual: &[f32], expected: &[f64], absolute: f64, relative: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let fine = if e.is_finite() {
            (f64::from(a) - e).abs() <= absolute + relative * e.abs()
        } else {
            a.is_nan() && e.is_nan() || f64::from(a) == e
        };
        assert!(fine, "[{i}]: {a} instead of {e}");
    }
}

/// The distance of `found` from `expected` in units of the last place of an `f32` near `expected`.
pub fn ulps(found: f32, expected: f64) -> f64 {
    let rounded = expected as f32;
    match rounded.is_finite() {
        true => ((f64::from(found) - expected) / ulp(rounded)).abs(),
        false if found == rounded || found.is_nan() && rounded.is_nan() => 0.0,
        false => f64::INFINITY,
    }
}

/// The gap between `x` and its neighbour towards zero.
fn ulp(x: f32) -> f64 {
    let bits = x.abs().to_bits().max(1);
    f64::from(f32::from_bits(bits)) - f64::from(f32::from_bits(bits - 1))
}
