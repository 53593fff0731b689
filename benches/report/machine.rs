//! What this machine can do at best: the limits that the workloads are held against.

use std::hint::black_box;
use std::time::Instant;

use ferrotape_kernels::isa::Isa;
use ferrotape_kernels::simd::{Simd, SimdKernel};

/// Multiply-adds in `N` independent chains: twelve are enough to hide the latency of two FMA units.
struct FmaChains<const N: usize> {
    rounds: usize,
}

impl<const N: usize> SimdKernel for FmaChains<N> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (scale, shift) = (s.splat(black_box(0.999_999)), s.splat(black_box(1e-6)));
        let mut chains = [s.splat(1.0); N];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = s.fma(*chain, scale, shift);
            }
        }
        let mut sum = s.zero();
        for chain in chains {
            sum = s.add(sum, chain);
        }
        s.reduce_sum(sum)
    }
}

/// The speed of `threads` threads doing nothing but FMA, in GFLOP/s: the median, in as many chains
/// as are fastest. Twelve need more registers than the portable vectors leave.
pub(crate) fn fma_peak(threads: usize, seconds: f64) -> f64 {
    // Milliseconds, beside which starting the threads does not count.
    let rounds = 2_000_000;
    let isa = Isa::current();
    let speed = |chains: usize, run: &(dyn Fn() -> f32 + Sync)| {
        let flops = (threads * rounds * chains * 2 * isa.lanes()) as f64;
        flops / median_time(threads, seconds, || _ = black_box(run())) * 1e-9
    };
    let six = speed(6, &|| isa.dispatch(FmaChains::<6> { rounds }));
    six.max(speed(12, &|| isa.dispatch(FmaChains::<12> { rounds })))
}

/// Memory bandwidths of `threads` threads together, in GB/s: reading, copying, and updating two
/// arrays in place while reading a third, as SGD with momentum does.
pub(crate) fn bandwidth(threads: usize, seconds: f64, test: bool) -> [(&'static str, f64); 3] {
    let len = if test { 1 << 12 } else { (32 << 20) / threads };
    let bytes = |streams: usize| (threads * len * 4 * streams) as f64;
    let arrays = || [1.0f32, 2.0, 3.0].map(|x| vec![x; len]);
    let per_thread: Vec<_> = (0..threads).map(|_| std::sync::Mutex::new(arrays())).collect();
    let run = |streams: usize, f: fn(&mut [Vec<f32>; 3])| {
        let time = median_time(threads, seconds, || {
            let index = rayon::current_thread_index().expect("inside the pool");
            f(&mut per_thread[index].lock().expect("no thread panics"));
        });
        bytes(streams) / time * 1e-9
    };
    [
        ("read", run(1, |[a, ..]| _ = black_box(Isa::current().dispatch(Sum(a))))),
        ("copy", run(2, |[a, b, _]| b.copy_from_slice(black_box(a)))),
        ("update", run(5, |[w, v, g]| Isa::current().dispatch(Update { w, v, g: black_box(g) }))),
    ]
}

/// `v = 0.9 v + g; w -= 1e-9 v`, in vectors, so that it waits for memory.
struct Update<'a> {
    w: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl SimdKernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [w, v] = [self.w, self.v].map(|x| x.chunks_exact_mut(S::LANES));
        for ((w, v), g) in w.zip(v).zip(self.g.chunks_exact(S::LANES)) {
            let velocity = s.fma(s.splat(0.9), s.read(v), s.read(g));
            s.write(v, velocity);
            s.write(w, s.fma(s.splat(-1e-9), velocity, s.read(w)));
        }
    }
}

/// A sum in eight vectors, so that it waits for memory and not for additions.
struct Sum<'a>(&'a [f32]);

impl SimdKernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.zero(); 8];
        for vectors in self.0.chunks_exact(8 * S::LANES) {
            for (sum, x) in sums.iter_mut().zip(vectors.chunks_exact(S::LANES)) {
                *sum = s.add(*sum, s.read(x));
            }
        }
        sums.into_iter().map(|sum| s.reduce_sum(sum)).sum()
    }
}

/// The median time of `f` run by all of `threads` threads at once.
fn median_time(threads: usize, seconds: f64, f: impl Fn() + Sync) -> f64 {
    let pool = super::pool(threads);
    pool.broadcast(|_| f());
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.len() < 5 || begun.elapsed().as_secs_f64() < seconds {
        let started = Instant::now();
        pool.broadcast(|_| f());
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
