//! What the kernel tests share: random numbers, guarded buffers, error bounds, thread pools.
#![allow(dead_code, unreachable_pub)] // each test binary uses some

use ferrotape_kernels::isa::{Isa, with_isa};

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

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Floats with canaries around: a kernel that reads them gets NaN, one that writes them is caught by `check`.
pub struct Guarded {
    all: Vec<f32>,
    len: usize,
}

const MARGIN: usize = 40;
const CANARY: u32 = 0x7fc0_1234; // a NaN

impl Guarded {
    pub fn new(from: &[f32]) -> Self {
        let canary = [f32::from_bits(CANARY); MARGIN];
        Self { all: [&canary[..], from, &canary[..]].concat(), len: from.len() }
    }

    pub fn get(&self) -> &[f32] {
        &self.all[MARGIN..MARGIN + self.len]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.all[MARGIN..MARGIN + self.len]
    }

    #[track_caller]
    pub fn check(&self, what: &str) {
        let intact = |s: &[f32]| s.iter().all(|x| x.to_bits() == CANARY);
        assert!(intact(&self.all[..MARGIN]), "{what}: wrote before the buffer");
        assert!(intact(&self.all[MARGIN + self.len..]), "{what}: wrote behind the buffer");
    }
}

pub fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub fn abs(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x).abs()).collect()
}

/// Every element within the bound of a sum of `terms` products: `(terms + 4) u * sum of the absolute products`, with
/// `u = 2^-24` (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1).
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

/// Asserts that `f` gives the same bits on 1, 2, 3, 4, 7 and 16 threads, on every instruction set.
#[track_caller]
pub fn assert_same_bits(what: &str, f: impl Fn() -> Vec<f32> + Sync) {
    on_every_isa(|isa| {
        let bits = |threads| -> Vec<u32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| with_isa(isa, &f)).iter().map(|x| x.to_bits()).collect()
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
