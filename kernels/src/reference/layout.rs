//! Naive twins of [`crate::layout`], [`crate::broadcast`] and [`crate::reduce`]: every one walks
//! all multi-dimensional indices and computes each address from scratch.

/// Calls `f` with every index of `shape`, last axis fastest.
fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for flat in 0..shape.iter().product() {
        let mut rest: usize = flat;
        for axis in (0..shape.len()).rev() {
            index[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        f(&index);
    }
}

/// The row-major address of `index` in an array of `shape`.
fn address(shape: &[usize], index: impl IntoIterator<Item = usize>) -> usize {
    index.into_iter().zip(shape).fold(0, |address, (i, extent)| address * extent + i)
}

/// The address in an array of shape `small` that broadcasting pairs with `index` of a larger one.
fn broadcast_address(small: &[usize], index: &[usize]) -> usize {
    let own = &index[index.len() - small.len()..];
    address(small, own.iter().zip(small).map(|(&i, &extent)| if extent == 1 { 0 } else { i }))
}

/// `y[i[axes[0]], i[axes[1]], ..] = x[i]`.
pub fn permute(x: &[f64], shape: &[usize], axes: &[usize]) -> Vec<f64> {
    let y_shape: Vec<_> = axes.iter().map(|&a| shape[a]).collect();
    let mut y = vec![0.0; x.len()];
    for_each_index(shape, |index| {
        y[address(&y_shape, axes.iter().map(|&a| index[a]))] = x[address(shape, index.to_vec())];
    });
    y
}

/// `dst[dst_offset + i] = src[src_offset + i]` for every index `i` of `block`.
pub fn copy_block(
    dst: &mut [f64],
    (dst_shape, dst_offset): (&[usize], &[usize]),
    src: &[f64],
    (src_shape, src_offset): (&[usize], &[usize]),
    block: &[usize],
) {
    let shifted = |shape, offset: &[usize], index: &[usize]| {
        address(shape, index.iter().zip(offset).map(|(i, o)| i + o))
    };
    for_each_index(block, |index| {
        dst[shifted(dst_shape, dst_offset, index)] = src[shifted(src_shape, src_offset, index)];
    });
}

/// `x` repeated to `y_shape` by NumPy's broadcasting rules.
pub fn broadcast_to(y_shape: &[usize], x: &[f64], x_shape: &[usize]) -> Vec<f64> {
    let mut y = Vec::new();
    for_each_index(y_shape, |index| y.push(x[broadcast_address(x_shape, index)]));
    y
}

/// The adjoint of [`broadcast_to`]: `dy` summed over every axis that was repeated.
pub fn sum_to(x_shape: &[usize], dy: &[f64], y_shape: &[usize]) -> Vec<f64> {
    let mut dx = vec![0.0; x_shape.iter().product()];
    for_each_index(y_shape, |index| {
        dx[broadcast_address(x_shape, index)] += dy[address(y_shape, index.to_vec())];
    });
    dx
}

/// `x` summed over `axes`.
pub fn sum_axes(x: &[f64], shape: &[usize], axes: &[usize]) -> Vec<f64> {
    let kept = |(axis, &extent): (usize, &usize)| if axes.contains(&axis) { 1 } else { extent };
    sum_to(&shape.iter().enumerate().map(kept).collect::<Vec<_>>(), x, shape)
}

/// The sum of squares.
pub fn sum_squares(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}
