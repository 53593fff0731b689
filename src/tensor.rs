//! The one tensor type: `f32`, row-major, contiguous, over [`ndarray::ArrayD`].
//!
//! Kernels want a slice and its dimensions, people want an n-dimensional array. [`Tensor`] is the
//! second with a promise (standard layout) that makes the first free: [`Tensor::data`] never
//! copies. Shapes are run-time values; [`Shape`] keeps them inline, so that recording a step
//! allocates nothing for them.

use std::fmt;
use std::ops::Deref;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

/// The largest number of dimensions a [`Shape`] can have.
pub const MAX_RANK: usize = 6;

/// The lengths of a tensor's dimensions, outermost first; `[]` is a scalar.
///
/// Dereferences to `[usize]`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// A shape with the given lengths.
    ///
    /// # Panics
    /// If there are more than [`MAX_RANK`] of them.
    #[track_caller]
    pub fn new(dims: &[usize]) -> Self {
        assert!(dims.len() <= MAX_RANK, "shape {dims:?} has more than {MAX_RANK} dimensions");
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() };
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }

    /// The number of elements: the product of the lengths, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    #[track_caller]
    fn from(dims: [usize; N]) -> Self {
        Shape::new(&dims)
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(dims: &[usize]) -> Self {
        Shape::new(dims)
    }
}

/// An n-dimensional array of `f32` in row-major order.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Always in standard (row-major, contiguous) layout.
    array: ArrayD<f32>,
}

impl Tensor {
    /// A tensor of the given shape over `data` in row-major order.
    ///
    /// # Panics
    /// If `data` does not hold exactly one value per element.
    #[track_caller]
    pub fn from_vec(data: Vec<f32>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(data.len(), shape.numel(), "shape {shape} does not fit {} values", data.len());
        let array = ArrayD::from_shape_vec(IxDyn(&shape), data).expect("the length was checked");
        Tensor { array }
    }

    /// A tensor whose elements are all `value`.
    pub fn full(value: f32, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Tensor::from_vec(vec![value; shape.numel()], shape)
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        Tensor::full(0.0, shape)
    }

    /// A tensor of rank 0.
    pub fn scalar(value: f32) -> Self {
        Tensor::full(value, [])
    }

    /// The lengths of the dimensions.
    pub fn shape(&self) -> Shape {
        Shape::new(self.array.shape())
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        self.array.as_slice().expect("a Tensor is always contiguous")
    }

    /// The elements in row-major order, to write to.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.array.as_slice_mut().expect("a Tensor is always contiguous")
    }

    /// The elements as an `ndarray` view.
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        self.array.view()
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        Tensor::from_vec(self.into_vec(), shape)
    }

    /// The elements in row-major order, taken out.
    pub fn into_vec(self) -> Vec<f32> {
        let (data, offset) = self.array.into_raw_vec_and_offset();
        debug_assert_eq!(offset.unwrap_or(0), 0);
        data
    }
}

impl From<ArrayD<f32>> for Tensor {
    /// Copies only if the array is not already in standard layout.
    fn from(array: ArrayD<f32>) -> Self {
        let compact =
            array.is_standard_layout() && array.len() == array.as_slice().map_or(0, <[f32]>::len);
        let shape = Shape::new(array.shape());
        if compact {
            let (data, offset) = array.into_raw_vec_and_offset();
            let start = offset.unwrap_or(0);
            if start == 0 && data.len() == shape.numel() {
                return Tensor::from_vec(data, shape);
            }
            return Tensor::from_vec(data[start..start + shape.numel()].to_vec(), shape);
        }
        Tensor::from_vec(array.iter().copied().collect(), shape)
    }
}

impl From<Tensor> for ArrayD<f32> {
    fn from(tensor: Tensor) -> Self {
        tensor.array
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, Slice};

    #[test]
    fn shapes_compare_and_print_by_their_dimensions() {
        assert_eq!(Shape::from([2, 3]).to_string(), "[2, 3]");
        assert_eq!(Shape::from([]).numel(), 1);
        assert_eq!(Shape::from([4, 0, 2]).numel(), 0);
        assert_ne!(Shape::from([2, 3]), Shape::from([3, 2]));
    }

    #[test]
    fn any_ndarray_becomes_row_major() {
        let base = ArrayD::from_shape_vec(IxDyn(&[2, 3]), vec![0., 1., 2., 3., 4., 5.]).unwrap();
        assert_eq!(Tensor::from(base.clone()).data(), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(Tensor::from(base.clone().reversed_axes()).data(), [0., 3., 1., 4., 2., 5.]);
        let mut tail = base.clone();
        tail.slice_axis_inplace(Axis(0), Slice::from(1..));
        assert_eq!(Tensor::from(tail).data(), [3., 4., 5.]);
        let mut backwards = base;
        backwards.invert_axis(Axis(1));
        assert_eq!(Tensor::from(backwards).data(), [2., 1., 0., 5., 4., 3.]);
    }

    #[test]
    #[should_panic(expected = "shape [2, 2] does not fit 3 values")]
    fn a_wrong_length_names_both() {
        Tensor::from_vec(vec![1.0; 3], [2, 2]);
    }
}
