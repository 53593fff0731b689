//! Reverse-mode automatic differentiation on an arena tape.
//!
//! The idea in four sentences. Running the model forward appends one *node* per operation to a
//! list, so every node comes after its operands. The chain rule then visits the list backwards:
//! when a node's turn comes, all its users have already added their share to its gradient, so
//! that gradient is complete, and the node adds its own share to its operands' gradients. That is
//! the whole algorithm; [`Graph::backward`] is its loop, and each file in [`crate::ops`] is one
//! operation's share.
//!
//! ```text
//! forward:   for each op, in program order:  value[n]  = op.forward(value[operands])
//! backward:  grad[loss] = 1
//!            for n in reverse order:         grad[operands] += op.backward(grad[n])
//! ```
//!
//! Who owns what:
//!
//! - [`Tape`] keeps the buffers and lives across steps: node *n* of this step gets the memory
//!   that node *n* had last step, so that a step allocates no tensors once shapes repeat.
//! - [`Graph`] is one step. It borrows the tape mutably and the [`Params`](crate::Params) shared,
//!   so the compiler refuses to update weights while a step that reads them is alive.
//! - [`Var`] is a node's number, good for this step only.
//! - [`Gradients`] is what [`Graph::backward`] leaves: it ends the borrow of the parameters.
//!
//! ```
//! use ferrotape::{Graph, Params, Tape, Tensor};
//!
//! let (params, mut tape) = (Params::new(0), Tape::new());
//! let input = Tensor::from_vec(vec![1.0, 2.0, 3.0], [3]);
//! let mut g = Graph::new(&mut tape, &params);
//! let x = g.leaf(&input);
//! let squares = g.mul(x, x);
//! let loss = g.sum(squares);
//! assert_eq!(g.item(loss), 14.0);
//! let gradients = g.backward(loss);
//! assert_eq!(gradients.wrt(x), Some(&[2.0, 4.0, 6.0][..]));
//! ```

mod gradcheck;
mod gradients;
mod graph;
mod op;

pub use gradcheck::{GradcheckError, gradcheck, gradcheck_with};
pub use gradients::Gradients;
pub(crate) use graph::SummaryNode;
pub use graph::{Graph, Mode};
pub use op::{BackwardCtx, ForwardCtx, InputGrads, Op, Operands, Saved};

use crate::params::ParamId;
use crate::tensor::Shape;

/// A value of one step: the number of a node in that step's [`Graph`].
///
/// Using it with another step's graph or gradients panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Var {
    index: u32,
    step: u32,
}

/// The buffers that live across steps. Create one per worker and pass it to every [`Graph`].
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    /// Operand lists of all nodes, one after the other; `Node::operands` is a range of it.
    operands: Vec<u32>,
    /// Per node: its value, unless it lives elsewhere (see [`Source`]).
    values: Vec<Vec<f32>>,
    /// Per node: the gradient of the loss with respect to it. Written on demand.
    grads: Vec<Vec<f32>>,
    /// Per node: whether this step has written its gradient. The first contributor overwrites
    /// the buffer and later ones add, so that no pass is spent on zeroing it.
    grad_written: Vec<bool>,
    /// Per node: what its forward pass keeps for its backward pass.
    saved: Vec<Saved>,
    /// The gradient of every parameter, in the layout of [`Params::flat`](crate::Params::flat).
    param_grads: Vec<f32>,
    /// Per parameter: whether this step has written its gradient.
    param_written: Vec<bool>,
    /// Reused for the operand shapes handed to [`Op::output_shape`].
    shapes: Vec<Shape>,
    /// How many steps this tape has seen.
    steps: u64,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Tape::default()
    }

    /// How many graphs this tape has served.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The memory held by the tape's buffers, in bytes.
    pub fn bytes(&self) -> usize {
        let floats = |buffers: &[Vec<f32>]| buffers.iter().map(Vec::capacity).sum::<usize>() * 4;
        floats(&self.values)
            + floats(&self.grads)
            + self.param_grads.capacity() * 4
            + self.saved.iter().map(Saved::bytes_held).sum::<usize>()
    }

    /// Empties the record but keeps every buffer.
    fn clear(&mut self) {
        self.nodes.clear();
        self.operands.clear();
        self.grad_written.clear();
        self.param_written.clear();
        self.steps += 1;
    }

    /// The node that owns the memory of `index`: follows aliases, which share it.
    fn root(&self, index: usize) -> usize {
        match self.nodes[index].source {
            Source::Alias(root) => root as usize,
            _ => index,
        }
    }
}

/// One line of the record.
struct Node {
    name: &'static str,
    shape: Shape,
    source: Source,
    operands: std::ops::Range<u32>,
    /// The operation, kept for the backward pass; `None` for leaves, aliases and in evaluation.
    op: Option<Box<dyn Op>>,
    /// Multiply-adds of the forward pass.
    macs: u64,
    /// Whether a gradient can flow into this node.
    requires_grad: bool,
}

/// Where a node's value lives.
#[derive(Clone, Copy)]
enum Source {
    /// In the tape's own buffer of this node.
    Tape,
    /// In a tensor of the caller: index into the graph's list of borrowed inputs.
    Input(u32),
    /// In the parameter store, at this place of its flat buffer.
    Param { id: ParamId, offset: usize },
    /// In the buffer of an earlier node, which is not itself an alias (reshape, flatten).
    Alias(u32),
}
