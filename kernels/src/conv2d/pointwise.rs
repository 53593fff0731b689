//! Kernels of 1 x 1, stride 1, no padding: for each image and group `y [o, pixels] = w [o, c] x [c,
//! pixels]`, and the gradient of the input is the same with `w` transposed.
//!
//! Threads split images and groups, each a product of its own; if there is only one, they split
//! that product. (The gradient of the weights sums over images and pixels at once: see
//! [`backward_weight`](super::backward_weight()).)

use super::Conv2dDims;
use crate::{
    Write,
    gemm::{self, Mat},
    isa::Isa,
    par::{self, Rows, Work},
};

pub(super) fn forward(y: &mut [f32], x: &[f32], w: &[f32], bias: Option<&[f32]>, d: &Conv2dDims) {
    let pixels = d.h * d.w;
    let write = match bias {
        Some(bias) => {
            for (y, bias) in y.chunks_exact_mut(pixels).zip(bias.iter().cycle()) {
                y.fill(*bias);
            }
            Write::Add
        }
        None => Write::Set,
    };
    let (c, o) = (d.c_group(), d.o_group());
    products(y, write, w, x, [o, c, pixels], d, |w| Mat::row_major(w, o, c));
}

pub(super) fn backward_input(dx: &mut [f32], write: Write, dy: &[f32], w: &[f32], d: &Conv2dDims) {
    let (c, o) = (d.c_group(), d.o_group());
    products(dx, write, w, dy, [c, o, d.h * d.w], d, |w| Mat::row_major(w, o, c).t());
}

/// `out[image, group] (=|+=) matrix(weights[group]) * planes[image, group]`, each `[m, pixels] =
/// [m, k] [k, pixels]`.
fn products<'w>(
    out: &mut [f32],
    write: Write,
    weights: &'w [f32],
    planes: &[f32],
    [m, k, pixels]: [usize; 3],
    d: &Conv2dDims,
    matrix: impl Fn(&'w [f32]) -> Mat<'w> + Sync,
) {
    let isa = Isa::current();
    let one = |out: &mut [f32], unit: usize| {
        let weights = &weights[unit % d.groups * m * k..][..m * k];
        let planes = Mat::row_major(&planes[unit * k * pixels..][..k * pixels], k, pixels);
        // SAFETY: out is one image and group, [m, pixels].
        unsafe {
            gemm::block(
                isa,
                out.as_mut_ptr(),
                pixels,
                write,
                matrix(weights),
                planes,
                0..m,
                0..pixels,
            )
        };
    };
    let units = d.n * d.groups;
    if units == 1 {
        return gemm::gemm(out, write, matrix(weights), Mat::row_major(planes, k, pixels));
    }
    let rows = Rows { data: out, row: m * pixels };
    par::split(Work::MultiplyAdds(d.multiply_adds()), units, rows, |range, rows| {
        for (unit, out) in range.zip(rows.data.chunks_exact_mut(m * pixels)) {
            one(out, unit);
        }
    });
}
