//! What max and average pooling share: options, shape rule and dimensions.

use ferrotape_kernels::pool2d::Pool2dDims;

use crate::tensor::Shape;

/// How a pooling window slides over its input. Pairs are `[vertical, horizontal]`.
///
/// ```
/// use ferrotape::ops::Pool2dOptions;
/// let overlapping = Pool2dOptions { stride: [2, 2], padding: [1, 1], ..Pool2dOptions::new(3) };
/// assert_eq!(overlapping.kernel, [3, 3]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool2dOptions {
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows, in pixels.
    pub stride: [usize; 2],
    /// Rows and columns added on each side, at most half a window. They never win a maximum, and
    /// count as zeros in a mean.
    pub padding: [usize; 2],
}

impl Pool2dOptions {
    /// A square window, as far from its neighbours as it is wide (they touch but do not overlap),
    /// without padding.
    pub fn new(kernel: usize) -> Self {
        Pool2dOptions { kernel: [kernel; 2], stride: [kernel; 2], padding: [0, 0] }
    }

    /// The shape of the output for an input `x`.
    pub(super) fn output_shape(&self, x: Shape) -> Result<Shape, String> {
        let [n, c, h, w] = *x else {
            return Err("expected an image [n, c, h, w]".into());
        };
        let mut size = [h, w];
        for (axis, size) in size.iter_mut().enumerate() {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            let padding = self.padding[axis];
            if kernel == 0 || stride == 0 {
                return Err("kernel and stride must be at least 1".into());
            }
            if padding > kernel / 2 {
                return Err(format!("padding {padding} is more than half the kernel {kernel}"));
            }
            let Some(free) = (*size + 2 * padding).checked_sub(kernel) else {
                return Err("the window is larger than the padded image".into());
            };
            *size = free / stride + 1;
        }
        Ok([n, c, size[0], size[1]].into())
    }

    /// The kernel's view of an input that passed [`Self::output_shape`].
    pub(super) fn dims(&self, x: Shape) -> Pool2dDims {
        let Pool2dOptions { kernel, stride, padding } = *self;
        Pool2dDims { n: x[0], c: x[1], h: x[2], w: x[3], kernel, stride, padding }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Pool2dOptions;
    use crate::ops::testing::shape_error;
    use crate::tape::{Graph, Var};

    /// Inputs and windows: touching, overlapping, leaving a rest, oblong, padded.
    pub(in crate::ops) const CASES: [([usize; 4], Pool2dOptions); 6] = [
        ([2, 3, 6, 8], Pool2dOptions { kernel: [2, 2], stride: [2, 2], padding: [0, 0] }),
        ([1, 2, 7, 5], Pool2dOptions { kernel: [2, 2], stride: [2, 2], padding: [0, 0] }),
        ([2, 1, 7, 7], Pool2dOptions { kernel: [3, 3], stride: [2, 2], padding: [1, 1] }),
        ([1, 2, 6, 5], Pool2dOptions { kernel: [3, 2], stride: [1, 1], padding: [0, 0] }),
        ([1, 1, 5, 9], Pool2dOptions { kernel: [2, 3], stride: [3, 4], padding: [0, 1] }),
        ([2, 2, 4, 4], Pool2dOptions { kernel: [4, 4], stride: [1, 1], padding: [2, 2] }),
    ];

    #[test]
    fn shape_errors_say_what_was_expected() {
        type Pool = fn(&mut Graph, Var, Pool2dOptions) -> Var;
        let pools: [(&str, Pool); 2] = [
            ("max_pool2d", |g, x, options| g.max_pool2d_with(x, options)),
            ("avg_pool2d", |g, x, options| g.avg_pool2d_with(x, options)),
        ];
        let two = Pool2dOptions::new(2);
        for (name, pool) in pools {
            for (shape, options, expected) in [
                (&[8, 8][..], two, "expected an image [n, c, h, w]"),
                (&[1, 1, 8, 1], two, "the window is larger than the padded image"),
                (&[1, 1, 8, 8], Pool2dOptions { stride: [2, 0], ..two }, "at least 1"),
                (&[1, 1, 8, 8], Pool2dOptions::new(0), "at least 1"),
                (&[1, 1, 8, 8], Pool2dOptions { padding: [0, 2], ..two }, "more than half"),
            ] {
                let error = shape_error(&[shape], |g, x| pool(g, x[0], options));
                assert!(error.starts_with(name) && error.contains(expected), "{error}");
            }
        }
    }
}
