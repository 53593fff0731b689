//! The same elements under another shape: reshape and flatten.
//!
//! Row-major order does not change, so neither do the numbers: value and gradient share the
//! operand's memory, and there is nothing to compute in either direction.

use crate::tape::{Graph, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The elements of `x` in row-major order under another shape. No copy is made.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshape(&mut self, x: Var, shape: impl Into<Shape>) -> Var {
        let (from, mut to) = (self.shape(x), shape.into());
        if from.numel() != to.numel() {
            to = self.refuse("reshape", &format!("cannot become {to}"), &[from]);
        }
        self.alias("reshape", x, to)
    }

    /// `[n, ...] -> [n, product of the rest]`: what a linear layer wants after convolutions. No
    /// copy is made.
    ///
    /// # Panics
    /// If `x` is a scalar.
    #[track_caller]
    pub fn flatten(&mut self, x: Var) -> Var {
        let from = self.shape(x);
        let to = match *from {
            [n, ref rest @ ..] => Shape::from([n, rest.iter().product()]),
            [] => self.refuse("flatten", "a scalar has no batch dimension", &[from]),
        };
        self.alias("flatten", x, to)
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    #[test]
    fn gradient_is_shared_with_other_uses_of_the_operand() {
        gradcheck(&[uniform(1, [2, 3, 4])], |g, x| {
            let flat = g.flatten(x[0]);
            let column = g.reshape(x[0], [24, 1]);
            let row = g.reshape(flat, [1, 24]);
            g.add(column, row)
        })
        .unwrap();
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = shape_error(&[&[2, 3]], |g, x| g.reshape(x[0], [4, 2]));
        assert_eq!(error, "reshape: cannot become [4, 2] (operands: [2, 3])");
        let error = shape_error(&[&[]], |g, x| g.flatten(x[0]));
        assert!(error.contains("a scalar has no batch dimension"), "{error}");
    }
}
