//! Kernels of 1 x 1, stride 1, no padding: for each image and group `y [o, pixels] = w [o, c] x [c, pixels]`.

use super::Conv2dDims;
use crate::{
    Write,
    gemm::{self, Mat},
    isa::Isa,
    par::{self, Rows, Shared, Work},
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

/// `out[image, group] (=|+=) matrix(weights[group]) * planes[image, group]`, each `[m, pixels] = [m, k] [k, pixels]`.
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

/// `dw[group] (=|+=) sum over images of dy[image, group] x[image, group]^T`
pub(super) fn backward_weight(dw: &mut [f32], write: Write, dy: &[f32], x: &[f32], d: &Conv2dDims) {
    let isa = Isa::current();
    let (c, o, pixels) = (d.c_group(), d.o_group(), d.h * d.w);
    let out = Shared(dw.as_mut_ptr());
    let step = 12; // whole tiles of dot products
    let per_group = o.div_ceil(step);
    par::split(Work::MultiplyAdds(d.multiply_adds()), d.groups * per_group, (), |units, ()| {
        for unit in units {
            let (group, first) = (unit / per_group, unit % per_group * step);
            for image in 0..d.n {
                let write = if image > 0 { Write::Add } else { write };
                let dy = Mat::row_major(
                    &dy[(image * d.groups + group) * o * pixels..][..o * pixels],
                    o,
                    pixels,
                );
                let x = Mat::row_major(
                    &x[(image * d.groups + group) * c * pixels..][..c * pixels],
                    c,
                    pixels,
                );
                // SAFETY: this group's [o, c] part of dw is there, and no other unit has these rows of it.
                unsafe {
                    let dw = out.get().add(group * o * c);
                    gemm::block(isa, dw, c, write, dy, x.t(), first..o.min(first + step), 0..c);
                }
            }
        }
    });
}
