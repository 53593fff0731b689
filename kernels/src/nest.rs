//! Loop nests over two strided arrays: the one idea behind permuting, slicing, concatenating,
//! padding, broadcasting and summing.
//!
//! Each of these visits a box of indices and, for every index, one address in each of two arrays.
//! A [`Nest`] holds the box's extents and both arrays' strides, outermost axis first. Axes of
//! extent 1 are dropped and neighbours that form one longer axis in both arrays are merged, so the
//! innermost loop is as long as the memory layout allows: a slice along the first axis of a
//! contiguous array becomes a single copy.

/// The largest number of axes of a tensor that the kernels accept.
pub(crate) const MAX_RANK: usize = 8;

/// One loop of a nest: how often it runs, and how far each pass moves in arrays `a` and `b`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Axis {
    pub(crate) extent: usize,
    pub(crate) a: usize,
    pub(crate) b: usize,
}

/// Loops from outermost to innermost, merged. Lives on the stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nest {
    axes: [Axis; MAX_RANK],
    rank: usize,
}

impl Nest {
    /// Adds a loop inside all earlier ones.
    pub(crate) fn push(&mut self, inner: Axis) {
        if inner.extent == 1 {
            return;
        }
        if let Some(outer) = self.axes[..self.rank].last_mut()
            && outer.a == inner.extent * inner.a
            && outer.b == inner.extent * inner.b
        {
            *outer = Axis { extent: outer.extent * inner.extent, ..inner };
            return;
        }
        self.axes[self.rank] = inner;
        self.rank += 1;
    }

    /// The merged loops, outermost first.
    pub(crate) fn axes(&self) -> &[Axis] {
        &self.axes[..self.rank]
    }

    /// Splits off the innermost loop; a nest without loops yields one that runs once.
    pub(crate) fn split_inner(mut self) -> (Nest, Axis) {
        match self.rank.checked_sub(1) {
            None => (self, Axis { extent: 1, a: 1, b: 1 }),
            Some(last) => {
                self.rank = last;
                (self, self.axes[last])
            }
        }
    }

    /// Splits off the outermost loop; a nest without loops yields one that runs once.
    pub(crate) fn split_outer(self) -> (Axis, Nest) {
        match self.rank {
            0 => (Axis { extent: 1, a: 1, b: 1 }, self),
            _ => self.remove(0),
        }
    }

    /// Takes out loop `index`.
    pub(crate) fn remove(mut self, index: usize) -> (Axis, Nest) {
        let axis = self.axes[index];
        self.axes.copy_within(index + 1..self.rank, index);
        self.rank -= 1;
        (axis, self)
    }

    /// How many indices the nest visits.
    pub(crate) fn len(&self) -> usize {
        self.axes().iter().map(|axis| axis.extent).product()
    }

    /// The addresses of the index that comes after `flat` others.
    pub(crate) fn addresses(&self, mut flat: usize) -> (usize, usize) {
        let (mut a, mut b) = (0, 0);
        for axis in self.axes().iter().rev() {
            a += flat % axis.extent * axis.a;
            b += flat % axis.extent * axis.b;
            flat /= axis.extent;
        }
        (a, b)
    }

    /// The addresses in a and b of every index, innermost loop fastest.
    ///
    /// An iterator and not a function that takes a closure, because a closure is compiled without
    /// the instructions of the kernel around it; see [`crate::simd`].
    pub(crate) fn iter(&self) -> Odometer<'_> {
        Odometer { axes: self.axes(), index: [0; MAX_RANK], next: (0, 0), left: self.len() }
    }
}

/// See [`Nest::iter`].
pub(crate) struct Odometer<'a> {
    axes: &'a [Axis],
    index: [usize; MAX_RANK],
    next: (usize, usize),
    left: usize,
}

impl Iterator for Odometer<'_> {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        self.left = self.left.checked_sub(1)?;
        let (mut a, mut b) = self.next;
        // Advance the innermost wheel; each one that comes full circle moves the one before it.
        for (axis, index) in self.axes.iter().zip(&mut self.index).rev() {
            *index += 1;
            a += axis.a;
            b += axis.b;
            if *index < axis.extent {
                break;
            }
            *index = 0;
            a -= axis.extent * axis.a;
            b -= axis.extent * axis.b;
        }
        Some(std::mem::replace(&mut self.next, (a, b)))
    }
}

/// The row-major strides of `shape`.
///
/// # Panics
/// If `shape` has more than [`MAX_RANK`] axes.
#[track_caller]
pub(crate) fn strides(op: &str, shape: &[usize]) -> [usize; MAX_RANK] {
    let rank = shape.len();
    assert!(rank <= MAX_RANK, "{op}: shape {shape:?} has {rank} axes, at most {MAX_RANK} work");
    let mut strides = [1; MAX_RANK];
    for axis in (1..rank).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Panics unless a slice fits its shape.
#[track_caller]
pub(crate) fn check_len(op: &str, name: &str, len: usize, shape: &[usize]) {
    let expected = crate::elements(shape);
    assert!(
        len == expected,
        "{op}: {name} has {len} values, {expected} expected by shape {shape:?}"
    );
}

/// The axes of `y_shape` with the strides of `x` (0 where it is repeated) as `a`, those of `y` as
/// `b`.
///
/// # Panics
/// If `x_shape` does not broadcast to `y_shape`.
#[track_caller]
pub(crate) fn broadcast(
    op: &str,
    x_shape: &[usize],
    y_shape: &[usize],
) -> impl Iterator<Item = Axis> {
    let (x_strides, y_strides) = (strides(op, x_shape), strides(op, y_shape));
    let missing = y_shape.len().checked_sub(x_shape.len());
    let fits = missing.is_some_and(|missing| {
        x_shape.iter().zip(&y_shape[missing..]).all(|(&x, &y)| x == y || x == 1)
    });
    assert!(fits, "{op}: shape {x_shape:?} does not broadcast to {y_shape:?}");
    y_shape.iter().enumerate().map(move |(axis, &extent)| {
        let own = missing.and_then(|missing| axis.checked_sub(missing));
        let a = own.map_or(0, |own| if x_shape[own] == 1 { 0 } else { x_strides[own] });
        Axis { extent, a, b: y_strides[axis] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(axes: &[(usize, usize, usize)]) -> Nest {
        let mut nest = Nest::default();
        axes.iter().for_each(|&(extent, a, b)| nest.push(Axis { extent, a, b }));
        nest
    }

    #[test]
    fn contiguous_axes_merge_into_one() {
        let merged = nest(&[(2, 12, 12), (3, 4, 4), (1, 99, 7), (4, 1, 1)]);
        assert_eq!(merged.axes(), [Axis { extent: 24, a: 1, b: 1 }]);
    }

    #[test]
    fn addresses_follow_both_strides() {
        let nest = nest(&[(2, 3, 1), (3, 1, 2)]);
        let seen: Vec<_> = nest.iter().collect();
        assert_eq!(seen, [(0, 0), (1, 2), (2, 4), (3, 1), (4, 3), (5, 5)]);
        assert!((0..6).all(|flat| nest.addresses(flat) == seen[flat]));
    }

    #[test]
    fn no_loop_runs_once_and_an_empty_one_never() {
        assert_eq!(nest(&[]).iter().count(), 1);
        assert_eq!(nest(&[(3, 1, 1), (0, 5, 1)]).iter().count(), 0);
    }
}
