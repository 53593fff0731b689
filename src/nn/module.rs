//! What a model is: something that turns an input into an output on a graph.

use super::{Summary, SummaryRow};
use crate::error::Result;
use crate::params::Params;
use crate::tape::{Graph, Mode, Tape, Var};
use crate::tensor::Shape;

/// A model or a part of one.
///
/// ```
/// use ferrotape::nn::{Linear, Module};
/// use ferrotape::{Graph, Params, Var};
///
/// struct Mlp {
///     hidden: Linear,
///     output: Linear,
/// }
///
/// impl Module for Mlp {
///     fn forward(&self, g: &mut Graph, x: Var) -> Var {
///         let h = self.hidden.forward(g, x);
///         let h = g.relu(h);
///         self.output.forward(g, h)
///     }
/// }
///
/// let mut params = Params::new(0);
/// let mlp = Mlp {
///     hidden: Linear::new(&mut params, "hidden", 784, 64),
///     output: Linear::new(&mut params, "output", 64, 10),
/// };
/// assert_eq!(*mlp.check(&params, [32, 784]).unwrap(), [32, 10]);
/// assert!(mlp.check(&params, [32, 100]).is_err());
/// ```
pub trait Module: Send + Sync {
    /// Computes the output for the input `x` on `g`.
    ///
    /// # Panics
    /// If `x` has a shape the module is not made for. [`Module::check`] tells beforehand.
    fn forward(&self, g: &mut Graph, x: Var) -> Var;

    /// The model as text, saved with its weights; empty if there is no such text.
    fn architecture(&self) -> String {
        String::new()
    }

    /// The shape of the output for an input of the given shape (with the batch dimension),
    /// without computing anything.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) with the first operation that refuses its operands.
    fn check(&self, params: &Params, input: impl Into<Shape>) -> Result<Shape>
    where
        Self: Sized,
    {
        self.summary(params, input).map(|summary| summary.output)
    }

    /// What the module does to an input of the given shape: every operation with its output
    /// shape, parameters and multiply-adds. Print it.
    ///
    /// # Errors
    /// As [`Module::check`].
    fn summary(&self, params: &Params, input: impl Into<Shape>) -> Result<Summary>
    where
        Self: Sized,
    {
        let mut tape = Tape::new();
        let mut g = Graph::with_mode(&mut tape, params, Mode::Check);
        let input = input.into();
        let x = g.placeholder(input);
        let y = self.forward(&mut g, x);
        if let Some(fault) = g.take_fault() {
            return Err(fault);
        }
        let rows = g.summary_nodes().map(SummaryRow::from).collect();
        Ok(Summary { input, output: g.shape(y), rows, parameters: params.numel() })
    }
}

/// A borrowed module is a module, also where its type is not known: `&dyn Module`.
impl<M: Module + ?Sized> Module for &M {
    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        (**self).forward(g, x)
    }

    fn architecture(&self) -> String {
        (**self).architecture()
    }
}
