//! Inverted dropout: each element is zeroed with probability `p` and the others are scaled up so
//! that expectations stay (Srivastava et al., 2014).
//!
//! ```text
//! y = x * m / (1 - p)        dx = dy * m / (1 - p)        m[i] = [u[i] >= p], u uniform
//! ```
//!
//! In evaluation it is the identity. The mask `m` is a pure function of the seed of the
//! parameters, the step, and the number of the random operation within the step; element `i`
//! takes value `i` of that stream. It is therefore the same for any number of threads, and the
//! same again when a run is resumed at that step.

use ferrotape_kernels::Write;
use ferrotape_kernels::par::{self, Work};

use crate::rng::{Purpose, Stream};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Mode, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// `x` with each element zeroed with probability `p` and the others divided by `1 - p`; `x`
    /// itself in evaluation. Which elements depends on [`Params::seed`](crate::Params::seed), the
    /// step ([`Graph::at_step`]) and how many dropouts came before in the step, and nothing else.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn dropout(&mut self, x: Var, p: f32) -> Var {
        let valid = (0.0..=1.0).contains(&p);
        if valid && (self.mode() == Mode::Eval || p == 0.0) {
            return x;
        }
        let seed = self.params().seed();
        let counters = self.next_random();
        self.apply(Dropout { p, seed, counters }, &[x])
    }
}

struct Dropout {
    p: f32,
    seed: u64,
    /// The step, and the number of the random operation within it.
    counters: (u64, u64),
}

impl Dropout {
    /// What the elements that stay are multiplied with. At `p = 1` none does.
    fn scale(&self) -> f32 {
        if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 }
    }

    /// Draws the mask: 1 for elements that stay.
    fn draw(&self, mask: &mut [u8]) {
        let (step, op) = self.counters;
        par::split(Work::Elements(mask.len()), mask.len(), mask, |range, mask| {
            let mut stream = Stream::new(self.seed, Purpose::Dropout, step, op);
            stream.seek(range.start as u64);
            mask.fill_with(|| u8::from(!stream.bernoulli(self.p)));
        });
    }

    /// `y (=|+=) x * mask * scale`.
    fn mask(&self, y: &mut [f32], write: Write, x: &[f32], mask: &[u8]) {
        let scale = self.scale();
        par::split(Work::Elements(y.len()), y.len(), (y, x, mask), |_, (y, x, mask)| {
            let terms = x.iter().zip(mask).map(|(&x, &m)| x * (f32::from(m) * scale));
            match write {
                Write::Set => y.iter_mut().zip(terms).for_each(|(y, t)| *y = t),
                Write::Add => y.iter_mut().zip(terms).for_each(|(y, t)| *y += t),
            }
        });
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match (0.0..=1.0).contains(&self.p) {
            true => Ok(inputs[0]),
            false => Err(format!("the probability {} is not in 0..=1", self.p)),
        }
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let mask = &mut ctx.saved.bytes;
        mask.resize(ctx.output.len(), 0);
        self.draw(mask);
        self.mask(ctx.output, Write::Set, &ctx.inputs[0], mask);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        if let Some((dx, write)) = ctx.grads.wrt(0) {
            self.mask(dx, write, ctx.d_output, &ctx.saved.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    /// Ones, after one or two dropouts at a step of a run.
    fn ones(n: usize, p: f32, seed: u64, step: u64, earlier: usize) -> Vec<f32> {
        let (mut tape, params) = (Tape::new(), Params::new(seed));
        let mut g = Graph::new(&mut tape, &params).at_step(step);
        let x = g.constant(Tensor::full(1.0, [n]));
        for _ in 0..earlier {
            g.dropout(x, p);
        }
        let y = g.dropout(x, p);
        g.value(y).to_vec()
    }

    #[test]
    fn gradient() {
        for p in [0.0, 0.3, 0.9, 1.0] {
            gradcheck(&[uniform(1, [4, 9])], |g, x| g.dropout(x[0], p)).unwrap();
            gradcheck(&[uniform(1, [4, 9])], |g, x| {
                let y = g.dropout(x[0], p);
                g.mul(x[0], y)
            })
            .unwrap();
        }
    }

    #[test]
    fn a_share_of_p_is_dropped_and_the_rest_scaled_up() {
        let n = 100_000;
        let y = ones(n, 0.2, 1, 0, 0);
        let kept = y.iter().filter(|&&y| y == 1.25).count();
        assert_eq!(kept + y.iter().filter(|&&y| y == 0.0).count(), n);
        // Five standard deviations of a binomial count.
        assert!(kept.abs_diff(80_000) < 633, "{kept} of {n} were kept");
        assert!(ones(9, 1.0, 1, 0, 0).iter().all(|&y| y == 0.0));
    }

    #[test]
    fn the_mask_depends_on_seed_step_and_number_only() {
        let n = 200_000;
        let y = ones(n, 0.5, 1, 7, 0);
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| ones(n, 0.5, 1, 7, 0)), y);
        }
        for (seed, step, earlier) in [(2, 7, 0), (1, 8, 0), (1, 7, 1)] {
            let other = ones(n, 0.5, seed, step, earlier);
            let equal = y.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(equal.abs_diff(n / 2) < 1_200, "{equal} of {n} are equal");
        }
    }

    #[test]
    fn evaluation_is_the_identity() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::eval(&mut tape, &params);
        let x = g.constant(Tensor::full(1.0, [3]));
        assert_eq!(g.dropout(x, 0.5), x);
    }

    #[test]
    fn a_probability_is_at_most_one() {
        for p in [-0.1, 1.1, f32::NAN] {
            let error = shape_error(&[&[3]], |g, x| g.dropout(x[0], p));
            assert!(error.contains(&format!("the probability {p} is not in 0..=1")), "{error}");
        }
    }
}
