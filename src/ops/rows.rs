//! Operations on rows, for rows along any dimension: the softmaxes.
//!
//! Their kernels work on contiguous rows, so a dimension that is not the last one changes places
//! with the last one on the way in and back on the way out.

use ferrotape_kernels::{Write, layout, scratch};

use super::dims::checked_dim;
use crate::tape::{BackwardCtx, ForwardCtx};
use crate::tensor::{MAX_RANK, Shape};

/// How the rows along one dimension of a value lie in memory.
struct RowLayout {
    shape: Shape,
    /// The shape after the exchange.
    swapped: Shape,
    /// The exchange, which is its own inverse.
    axes: [usize; MAX_RANK],
    is_last: bool,
}

impl RowLayout {
    fn new(shape: Shape, dim: isize) -> Self {
        let (dim, last) = (checked_dim(dim, shape), shape.rank() - 1);
        let mut axes = std::array::from_fn(|axis| axis);
        axes.swap(dim, last);
        let mut swapped = [0; MAX_RANK];
        swapped[..=last].copy_from_slice(&shape);
        swapped.swap(dim, last);
        RowLayout { shape, swapped: Shape::new(&swapped[..=last]), axes, is_last: dim == last }
    }

    /// The number of rows and the length of each.
    fn size(&self) -> (usize, usize) {
        let cols = self.swapped[self.shape.rank() - 1];
        (self.shape.numel() / cols.max(1), cols)
    }

    fn axes(&self) -> &[usize] {
        &self.axes[..self.shape.rank()]
    }

    fn swap_in(&self, rows: &mut [f32], x: &[f32]) {
        layout::permute(rows, Write::Set, x, &self.shape, self.axes());
    }

    fn swap_out(&self, y: &mut [f32], write: Write, rows: &[f32]) {
        layout::permute(y, write, rows, &self.swapped, self.axes());
    }
}

/// Runs `kernel(y, x, rows, cols)` on the rows along `dim`.
pub(crate) fn forward_rows(
    ctx: ForwardCtx<'_>,
    dim: isize,
    kernel: impl Fn(&mut [f32], &[f32], usize, usize),
) {
    let (layout, x) = (RowLayout::new(ctx.output_shape, dim), ctx.inputs.data(0));
    let (rows, cols) = layout.size();
    if layout.is_last {
        return kernel(ctx.output, x, rows, cols);
    }
    scratch::with(2 * x.len(), |space| {
        let (y_rows, x_rows) = space.split_at_mut(x.len());
        layout.swap_in(x_rows, x);
        kernel(y_rows, x_rows, rows, cols);
        layout.swap_out(ctx.output, Write::Set, y_rows);
    });
}

/// Runs `kernel(dx, write, dy, y, rows, cols)` on the rows along `dim`.
pub(crate) fn backward_rows(
    mut ctx: BackwardCtx<'_>,
    dim: isize,
    kernel: impl Fn(&mut [f32], Write, &[f32], &[f32], usize, usize),
) {
    let (layout, dy, y) = (RowLayout::new(ctx.output_shape, dim), ctx.d_output, ctx.output);
    let (rows, cols) = layout.size();
    let Some((dx, write)) = ctx.grads.wrt(0) else { return };
    if layout.is_last {
        return kernel(dx, write, dy, y, rows, cols);
    }
    scratch::with(3 * y.len(), |space| {
        let (dx_rows, space) = space.split_at_mut(y.len());
        let (dy_rows, y_rows) = space.split_at_mut(y.len());
        layout.swap_in(dy_rows, dy);
        layout.swap_in(y_rows, y);
        kernel(dx_rows, Write::Set, dy_rows, y_rows, rows, cols);
        layout.swap_out(dx, write, dx_rows);
    });
}
