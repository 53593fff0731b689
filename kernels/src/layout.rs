//! Moving data without changing it: permuted axes, blocks cut out of and put into larger arrays.
//!
//! All are one strided [`copy`] whose loops are a [`Nest`].

use crate::{
    Write,
    nest::{self, Axis, MAX_RANK, Nest},
    par::{self, Rows, Work},
    tuning::layout::TILE,
};

/// `y (=|+=) x` with its axes permuted: axis `i` of `y` is axis `axes[i]` of `x`.
///
/// x: `shape`, y: `shape[axes[0]], shape[axes[1]], ..`
///
/// # Panics
/// If the lengths don't fit, `axes` is not a permutation, or there are more than 8 axes.
#[track_caller]
pub fn permute(y: &mut [f32], write: Write, x: &[f32], shape: &[usize], axes: &[usize]) {
    let x_strides = nest::strides("permute", shape);
    nest::check_len("permute", "y", y.len(), shape);
    nest::check_len("permute", "x", x.len(), shape);
    let is_permutation = axes.len() == shape.len() && (0..axes.len()).all(|a| axes.contains(&a));
    assert!(is_permutation, "permute: {axes:?} is not an order of the axes of shape {shape:?}");
    let mut y_shape = [1; MAX_RANK];
    for (extent, &axis) in y_shape.iter_mut().zip(axes) {
        *extent = shape[axis];
    }
    let y_strides = nest::strides("permute", &y_shape[..axes.len()]);
    let mut nest = Nest::default();
    for (&axis, a) in axes.iter().zip(y_strides) {
        nest.push(Axis { extent: shape[axis], a, b: x_strides[axis] });
    }
    copy(y, write, x, nest);
}

/// `dst[dst_offset + i] (=|+=) src[src_offset + i]` for every index `i` of `block_shape`.
///
/// dst: `dst_shape`, src: `src_shape`, all of the same rank. Slicing reads a block of a larger
/// `src`, concatenating and padding write one of a larger `dst`; swapped, each is the other's
/// backward pass. What lies outside of the block in `dst` stays as it is.
///
/// # Panics
/// If ranks or lengths don't fit, or a block reaches beyond its array.
#[track_caller]
#[allow(clippy::too_many_arguments)] // three shapes and two places are what a block copy is
pub fn copy_block(
    dst: &mut [f32],
    dst_shape: &[usize],
    dst_offset: &[usize],
    write: Write,
    src: &[f32],
    src_shape: &[usize],
    src_offset: &[usize],
    block_shape: &[usize],
) {
    let start = |name: &str, len: usize, shape: &[usize], offset: &[usize]| {
        nest::check_len("copy_block", name, len, shape);
        let strides = nest::strides("copy_block", shape);
        let rank = block_shape.len();
        let fits = shape.len() == rank
            && offset.len() == rank
            && (0..rank)
                .all(|i| offset[i].checked_add(block_shape[i]).is_some_and(|end| end <= shape[i]));
        assert!(
            fits,
            "copy_block: a block {block_shape:?} at {offset:?} is not inside of {name} {shape:?}"
        );
        (strides, offset.iter().zip(strides).map(|(o, stride)| o * stride).sum::<usize>())
    };
    let (dst_strides, dst_start) = start("dst", dst.len(), dst_shape, dst_offset);
    let (src_strides, src_start) = start("src", src.len(), src_shape, src_offset);
    if block_shape.contains(&0) {
        return;
    }
    let mut nest = Nest::default();
    for ((&extent, a), b) in block_shape.iter().zip(dst_strides).zip(src_strides) {
        nest.push(Axis { extent, a, b });
    }
    copy(&mut dst[dst_start..], write, &src[src_start..], nest);
}

/// `y[a] (=|+=) x[b]` for all address pairs of the nest.
///
/// The strides of `y` must be positive and shrink inwards, as those of any row-major array do.
pub(crate) fn copy(y: &mut [f32], write: Write, x: &[f32], nest: Nest) {
    if nest.len() == 0 {
        return;
    }
    // The outermost loop cuts y into disjoint slices, which threads share.
    let (outer, rest) = nest.split_outer();
    let len = y.len().min(outer.extent * outer.a);
    let y = Rows { data: &mut y[..len], row: outer.a };
    par::split(Work::Elements(2 * nest.len()), outer.extent, y, |range, y| {
        let mut piece = Nest::default();
        piece.push(Axis { extent: range.len(), ..outer });
        rest.axes().iter().for_each(|&axis| piece.push(axis));
        let x = &x[range.start * outer.b..];
        match write {
            Write::Set => copy_piece(y.data, x, piece, |y, x| *y = x),
            Write::Add => copy_piece(y.data, x, piece, |y, x| *y += x),
        }
    });
}

/// [`copy`] by one thread, with `put` for each pair.
fn copy_piece(y: &mut [f32], x: &[f32], nest: Nest, put: impl Fn(&mut f32, f32)) {
    let (outer, inner) = nest.split_inner();
    let extent = inner.extent;
    let crossing = outer.axes().iter().position(|axis| axis.b == 1);
    match (inner.a, inner.b, crossing) {
        (1, 1, _) => {
            for (a, b) in outer.iter() {
                y[a..][..extent].iter_mut().zip(&x[b..][..extent]).for_each(|(y, &x)| put(y, x));
            }
        }
        (1, 0, _) => {
            for (a, b) in outer.iter() {
                y[a..][..extent].iter_mut().for_each(|y| put(y, x[b]));
            }
        }
        (1, stride, Some(crossing)) => {
            // x runs along one axis, y along another: a transposition, in square tiles, so that the
            // cache lines of both are used up before they are evicted.
            let (across, outer) = outer.remove(crossing);
            for (a, b) in outer.iter() {
                for i0 in (0..across.extent).step_by(TILE) {
                    for j0 in (0..extent).step_by(TILE) {
                        for i in i0..across.extent.min(i0 + TILE) {
                            let y = &mut y[a + i * across.a..];
                            for j in j0..extent.min(j0 + TILE) {
                                put(&mut y[j], x[b + i + j * stride]);
                            }
                        }
                    }
                }
            }
        }
        _ => nest.iter().for_each(|(a, b)| put(&mut y[a], x[b])),
    }
}
