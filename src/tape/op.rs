//! What an operation is: [`Op`], and what it is handed in each direction.

use ferrotape_kernels::Write;

use super::{Node, Source};
use crate::params::Params;
use crate::tensor::{Shape, Tensor};

/// One differentiable operation.
///
/// An implementation is the whole story of an operation in one place: its shape rule, its
/// forward pass and its backward pass. All of [`crate::ops`] is written against this trait, and
/// so are operations of your own: pass them to [`Graph::apply`](super::Graph::apply) and prove
/// them with [`gradcheck`](super::gradcheck).
///
/// ```
/// use ferrotape::tape::{BackwardCtx, ForwardCtx, Graph, Op, gradcheck};
/// use ferrotape::{Shape, Tensor};
///
/// /// y = x^3, elementwise.
/// struct Cube;
///
/// impl Op for Cube {
///     fn name(&self) -> &'static str {
///         "cube"
///     }
///     fn output_shape(&self, x: &[Shape]) -> Result<Shape, String> {
///         Ok(x[0])
///     }
///     fn forward(&self, ctx: ForwardCtx<'_>) {
///         for (y, x) in ctx.output.iter_mut().zip(&ctx.inputs[0]) {
///             *y = x * x * x;
///         }
///     }
///     fn backward(&self, mut ctx: BackwardCtx<'_>) {
///         let x = &ctx.inputs[0];
///         ctx.grads.add_to(0, |i| 3.0 * x[i] * x[i] * ctx.d_output[i]);
///     }
/// }
///
/// let x = Tensor::from_vec(vec![0.5, -1.0, 2.0], [3]);
/// gradcheck(&[x], |g: &mut Graph, x| g.apply(Cube, &[x[0]])).unwrap();
/// ```
pub trait Op: Send + Sync {
    /// The operation's name in messages and listings, as in PyTorch where it has one there.
    fn name(&self) -> &'static str;

    /// The shape of the output for operands of the given shapes.
    ///
    /// # Errors
    /// What does not fit and what was expected, as one line. The caller adds the operation's
    /// name and all operand shapes.
    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String>;

    /// Computes the output. The output buffer holds arbitrary values on entry.
    fn forward(&self, ctx: ForwardCtx<'_>);

    /// Adds this node's share to the gradients of its inputs: the transposed Jacobian times
    /// [`BackwardCtx::d_output`].
    fn backward(&self, ctx: BackwardCtx<'_>);

    /// Writes what the forward pass has learnt (see [`ForwardCtx::saved`]) into buffers of the
    /// model, once the step is applied. Most operations have none.
    fn update_buffers(&self, _saved: &Saved, _params: &mut Params) {}

    /// Multiply-adds of one forward pass, for model summaries. Zero where they do not dominate.
    fn macs(&self, _inputs: &[Shape], _output: Shape) -> u64 {
        0
    }
}

/// What [`Op::forward`] gets.
pub struct ForwardCtx<'a> {
    /// The operands.
    pub inputs: Operands<'a>,
    /// The output's elements, to be overwritten.
    pub output: &'a mut [f32],
    /// The output's shape.
    pub output_shape: Shape,
    /// Where to keep what the backward pass needs besides inputs and output.
    pub saved: &'a mut Saved,
    /// Whether a backward pass may follow.
    pub recording: bool,
}

/// What [`Op::backward`] gets.
pub struct BackwardCtx<'a> {
    /// The operands, as they were in the forward pass.
    pub inputs: Operands<'a>,
    /// The output, as the forward pass left it.
    pub output: &'a [f32],
    /// The output's shape.
    pub output_shape: Shape,
    /// The gradient of the loss with respect to the output.
    pub d_output: &'a [f32],
    /// What the forward pass kept.
    pub saved: &'a Saved,
    /// Where the gradients of the inputs go.
    pub grads: InputGrads<'a>,
}

/// Buffers that a node keeps from its forward to its backward pass, reused by the same node of
/// the next step.
#[derive(Default)]
pub struct Saved {
    /// Floats, such as probabilities.
    pub floats: Vec<f32>,
    /// Bytes, such as the winners of a pooling window.
    pub bytes: Vec<u8>,
    /// Indices, such as class labels.
    pub indices: Vec<usize>,
}

impl Saved {
    pub(super) fn bytes_held(&self) -> usize {
        self.floats.capacity() * size_of::<f32>()
            + self.bytes.capacity()
            + self.indices.capacity() * size_of::<usize>()
    }
}

/// The operands of a node: index it for the elements, ask [`Operands::shape`] for the shape.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) operands: &'a [u32],
    pub(super) values: &'a [Vec<f32>],
    pub(super) inputs: &'a [&'a Tensor],
    pub(super) params: &'a Params,
}

impl<'a> Operands<'a> {
    /// The number of operands.
    pub fn len(&self) -> usize {
        self.operands.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operands.is_empty()
    }

    /// The shape of operand `k`.
    pub fn shape(&self, k: usize) -> Shape {
        self.nodes[self.operands[k] as usize].shape
    }

    /// The elements of operand `k`, borrowed for as long as the context itself.
    pub fn data(&self, k: usize) -> &'a [f32] {
        self.node(self.operands[k] as usize)
    }

    /// The elements of node `index`.
    pub(super) fn node(&self, index: usize) -> &'a [f32] {
        match self.nodes[index].source {
            Source::Tape => &self.values[index],
            Source::Input(input) => self.inputs[input as usize].data(),
            Source::Param { id, .. } => self.params.get(id),
            Source::Alias(root) => self.node(root as usize),
        }
    }
}

impl std::ops::Index<usize> for Operands<'_> {
    type Output = [f32];
    fn index(&self, k: usize) -> &[f32] {
        self.data(k)
    }
}

/// The gradients of a node's inputs, to be written by [`Op::backward`].
pub struct InputGrads<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) operands: &'a [u32],
    pub(super) grads: &'a mut [Vec<f32>],
    pub(super) grad_written: &'a mut [bool],
    pub(super) params: &'a Params,
    pub(super) param_grads: &'a mut [f32],
    pub(super) param_written: &'a mut [bool],
}

impl InputGrads<'_> {
    /// The gradient buffer of operand `k`, and whether to overwrite it or to add to it.
    ///
    /// `None` if nobody needs that gradient: skip the work. After `Some`, the buffer must be
    /// written in full ([`Write::Set`]) or added to ([`Write::Add`]).
    pub fn wrt(&mut self, k: usize) -> Option<(&mut [f32], Write)> {
        let mut index = self.operands[k] as usize;
        if !self.nodes[index].requires_grad {
            return None;
        }
        if let Source::Alias(root) = self.nodes[index].source {
            index = root as usize;
        }
        if let Source::Param { id, .. } = self.nodes[index].source {
            let written = std::mem::replace(&mut self.param_written[id.index()], true);
            return Some((&mut self.param_grads[self.params.range(id)], write_mode(written)));
        }
        let written = std::mem::replace(&mut self.grad_written[index], true);
        let grad = &mut self.grads[index];
        grad.resize(self.nodes[index].shape.numel(), 0.0);
        Some((grad, write_mode(written)))
    }

    /// Adds `share(i)` to element `i` of operand `k`'s gradient: the short way for simple ops.
    pub fn add_to(&mut self, k: usize, share: impl Fn(usize) -> f32) {
        match self.wrt(k) {
            None => {}
            Some((grad, Write::Set)) => {
                grad.iter_mut().enumerate().for_each(|(i, g)| *g = share(i));
            }
            Some((grad, Write::Add)) => {
                grad.iter_mut().enumerate().for_each(|(i, g)| *g += share(i));
            }
        }
    }
}

/// The first contributor overwrites, later ones add.
fn write_mode(already_written: bool) -> Write {
    if already_written { Write::Add } else { Write::Set }
}
