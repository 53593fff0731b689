//! Threads that wait for the next kernel instead of going to sleep.
//!
//! A thread of a rayon pool that finds no work for 20 us sleeps, and waking it takes 30 to 70 us on
//! a virtual machine: as long as many a kernel. Between two kernels of a training step there is
//! often that much work for one thread only. So whoever cuts work asks the other threads to stay
//! awake for a while after the last cut; they look for work, of whatever kind, and give way to any
//! other program that wants their core.
//!
//! Two threads, training step of the article's network, in turns: 180 -> 146 us for 4 images; for 32
//! in one hour 777 -> 635, in another 642 -> 600. Inference of one image 22 -> 18.4.

use crate::tuning::par::AWAKE;
use std::{
    cell::Cell,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

thread_local! {
    /// Until when the other threads stay awake for the work of this one, in nanoseconds; 0 if they
    /// do not.
    static UNTIL: Arc<AtomicU64> = Arc::default();
    /// Whether this thread is staying awake already.
    static STAYING: Cell<bool> = const { Cell::new(false) };
}

/// Nanoseconds since some moment, and never 0.
fn now() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_nanos() as u64 + 1
}

/// Keeps the other threads of the current pool awake for [`AWAKE`] from now on.
pub(crate) fn keep() {
    let now = now();
    UNTIL.with(|until| {
        if until.swap(now + AWAKE.as_nanos() as u64, Relaxed) >= now {
            return;
        }
        let (until, this) = (Arc::clone(until), rayon::current_thread_index());
        rayon::spawn_broadcast(move |context| {
            if Some(context.index()) != this && !STAYING.replace(true) {
                stay(&until);
                STAYING.set(false);
            }
        });
    });
}

/// Works on what there is until the time is over, which may be put off meanwhile.
fn stay(until: &AtomicU64) {
    loop {
        let end = until.load(Relaxed);
        if now() < end {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                thread::yield_now();
            }
        } else if until.compare_exchange(end, 0, Relaxed, Relaxed).is_ok() {
            // Whoever asks next will find the 0, and ask all threads again.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::par::{Work, split};
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn threads_do_other_work_meanwhile_and_go_to_sleep() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let done = AtomicUsize::new(0);
        pool.install(|| {
            for round in 1..=3 {
                split(Work::Elements(usize::MAX), 8, (), |units, ()| {
                    done.fetch_add(units.len(), Relaxed);
                });
                rayon::scope(|scope| {
                    scope.spawn_broadcast(|_, _| _ = done.fetch_add(1, Relaxed));
                });
                assert_eq!(done.load(Relaxed), 12 * round);
                while UNTIL.with(|until| until.load(Relaxed)) != 0 {
                    thread::yield_now();
                }
            }
        });
    }
}
