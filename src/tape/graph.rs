//! One step: recording operations forward, then the reverse sweep.

use std::sync::atomic::{AtomicU32, Ordering};

use super::op::{BackwardCtx, ForwardCtx, InputGrads, Operands, Saved};
use super::{Gradients, Node, Op, Source, Tape, Var};
use crate::error::Error;
use crate::params::{ParamId, Params};
use crate::tensor::{Shape, Tensor};
use ndarray::{ArrayViewD, IxDyn};

/// What a graph is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Operations are recorded for [`Graph::backward`]; dropout is active.
    Train,
    /// Nothing is recorded; dropout is the identity.
    Eval,
    /// Only shapes are computed: nothing is read, written or recorded.
    Check,
}

/// One step of computation over a [`Tape`] and a [`Params`] store.
///
/// The methods that build it (`g.relu(x)`, `g.conv2d(..)`) are in [`crate::ops`], one file each.
/// Operations run as they are called. A wrong shape panics and names the operation, the shapes
/// and what was expected.
pub struct Graph<'t, 'p> {
    tape: &'t mut Tape,
    params: &'p Params,
    /// Tensors of the caller that nodes refer to instead of copying.
    inputs: Vec<&'p Tensor>,
    mode: Mode,
    /// Tells this graph's [`Var`]s from those of any other in the process.
    id: u32,
    /// The position in training: the counter that random operations draw at.
    step: u64,
    /// How many random operations this graph has run.
    random_ops: u64,
    /// Whether parameter gradients are added to those of the step before.
    accumulate: bool,
    /// In [`Mode::Check`]: the first shape error.
    fault: Option<Error>,
}

/// One recorded operation, as a model summary shows it.
pub(crate) struct SummaryNode<'a> {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Names and shapes of the parameters among the operands.
    pub(crate) params: Vec<(&'a str, Shape)>,
    pub(crate) macs: u64,
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

impl<'t, 'p> Graph<'t, 'p> {
    /// A step that can be differentiated.
    pub fn new(tape: &'t mut Tape, params: &'p Params) -> Self {
        Graph::with_mode(tape, params, Mode::Train)
    }

    /// A step for evaluation: nothing is recorded, dropout is the identity.
    pub fn eval(tape: &'t mut Tape, params: &'p Params) -> Self {
        Graph::with_mode(tape, params, Mode::Eval)
    }

    /// A step in the given mode.
    pub fn with_mode(tape: &'t mut Tape, params: &'p Params, mode: Mode) -> Self {
        tape.clear();
        let step = tape.steps - 1;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Graph {
            tape,
            params,
            inputs: Vec::new(),
            mode,
            id,
            step,
            random_ops: 0,
            accumulate: false,
            fault: None,
        }
    }

    /// Sets the counter that random operations (dropout) draw at; by default the number of
    /// graphs the tape has served before. Give the global step to make a resumed run repeat the
    /// uninterrupted one.
    pub fn at_step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// Makes [`Graph::backward`] add the gradients of the parameters to those that the step before
    /// left on this tape, instead of replacing them: a batch that is too large for the memory is
    /// computed in pieces.
    ///
    /// ```
    /// # use ferrotape::{Graph, Params, Tape, Tensor, nn::{Linear, Module}, optim::Sgd};
    /// # let mut params = Params::new(0);
    /// # let model = Linear::new(&mut params, "fc", 3, 2);
    /// # let (mut sgd, mut tape) = (Sgd::new(0.1), Tape::new());
    /// # let piece = |label| (Tensor::full(label as f32, [4, 3]), [label; 4]);
    /// let pieces = [piece(0), piece(1)]; // of equal size: each is half of the batch
    /// for (i, (images, labels)) in pieces.iter().enumerate() {
    ///     let mut g = Graph::new(&mut tape, &params);
    ///     if i > 0 {
    ///         g = g.accumulate();
    ///     }
    ///     let x = g.input(images);
    ///     let logits = model.forward(&mut g, x);
    ///     let loss = g.cross_entropy(logits, labels);
    ///     let gradients = g.backward_with(loss, &[0.5]);
    ///     if i + 1 == pieces.len() {
    ///         sgd.step(&mut params, &gradients);
    ///     } else {
    ///         gradients.update_buffers(&mut params);
    ///     }
    /// }
    /// ```
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// What this graph is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The parameters this step reads.
    pub fn params(&self) -> &'p Params {
        self.params
    }

    /// A tensor that needs no gradient, such as a batch of images. It is borrowed, not copied.
    pub fn input(&mut self, tensor: &'p Tensor) -> Var {
        self.borrow(tensor, false)
    }

    /// A tensor whose gradient is wanted: [`Gradients::wrt`] gives it. Borrowed, not copied.
    pub fn leaf(&mut self, tensor: &'p Tensor) -> Var {
        self.borrow(tensor, true)
    }

    fn borrow(&mut self, tensor: &'p Tensor, requires_grad: bool) -> Var {
        self.inputs.push(tensor);
        let source = Source::Input(self.inputs.len() as u32 - 1);
        self.push_leaf("input", tensor.shape(), source, requires_grad)
    }

    /// A constant made on the spot; needs no gradient.
    pub fn constant(&mut self, tensor: Tensor) -> Var {
        let var = self.push_leaf("constant", tensor.shape(), Source::Tape, false);
        self.tape.values[var.index as usize] = tensor.into_vec();
        var
    }

    /// A parameter. Its value is read in place; its gradient lands in [`Gradients::param`]. A
    /// buffer is read in the same way, and has no gradient.
    pub fn param(&mut self, id: ParamId) -> Var {
        let source = Source::Param { id, offset: self.params.range(id).start };
        self.push_leaf("param", self.params.shape(id), source, !self.params.is_buffer(id))
    }

    /// In [`Mode::Check`]: a value of which only the shape is known.
    pub(crate) fn placeholder(&mut self, shape: Shape) -> Var {
        assert_eq!(self.mode, Mode::Check, "a placeholder has no elements");
        self.push_leaf("input", shape, Source::Tape, false)
    }

    fn push_leaf(
        &mut self,
        name: &'static str,
        shape: Shape,
        source: Source,
        requires_grad: bool,
    ) -> Var {
        let end = self.tape.operands.len() as u32;
        let requires_grad = requires_grad && self.mode == Mode::Train;
        self.push(Node {
            name,
            shape,
            source,
            operands: end..end,
            op: None,
            macs: 0,
            requires_grad,
        })
    }

    fn push(&mut self, node: Node) -> Var {
        let index = self.tape.nodes.len();
        self.tape.nodes.push(node);
        if self.tape.values.len() == index {
            self.tape.values.push(Vec::new());
            self.tape.grads.push(Vec::new());
            self.tape.saved.push(Saved::default());
        }
        Var { index: index as u32, step: self.id }
    }

    /// Runs an operation and records it.
    ///
    /// # Panics
    /// If the operands do not fit ([`Op::output_shape`]), or belong to another step.
    #[track_caller]
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Var]) -> Var {
        self.apply_with(op, inputs, |_| {})
    }

    /// As [`Graph::apply`], for an operation whose data (class labels, say) has to be copied
    /// into its [`Saved`] buffers before the forward pass.
    ///
    /// # Panics
    /// As [`Graph::apply`].
    #[track_caller]
    pub fn apply_with(
        &mut self,
        op: impl Op + 'static,
        inputs: &[Var],
        prepare: impl FnOnce(&mut Saved),
    ) -> Var {
        let start = self.tape.operands.len();
        let mut shapes = std::mem::take(&mut self.tape.shapes);
        shapes.clear();
        let mut requires_grad = false;
        for &input in inputs {
            let index = self.index(input);
            self.tape.operands.push(index as u32);
            shapes.push(self.tape.nodes[index].shape);
            requires_grad |= self.tape.nodes[index].requires_grad;
        }
        let shape = match op.output_shape(&shapes) {
            Ok(shape) => shape,
            Err(reason) => self.refuse(op.name(), &reason, &shapes),
        };
        let (name, macs) = (op.name(), op.macs(&shapes, shape));
        self.tape.shapes = shapes;

        let recording = self.mode == Mode::Train && requires_grad;
        let end = self.tape.operands.len();
        let var = self.push(Node {
            name,
            shape,
            source: Source::Tape,
            operands: start as u32..end as u32,
            op: None,
            macs,
            requires_grad: recording,
        });
        if self.mode == Mode::Check {
            return var;
        }

        let index = var.index as usize;
        let Tape { nodes, operands, values, saved, .. } = &mut *self.tape;
        let (before, after) = values.split_at_mut(index);
        let output = &mut after[0];
        output.resize(shape.numel(), 0.0);
        prepare(&mut saved[index]);
        op.forward(ForwardCtx {
            inputs: Operands {
                nodes,
                operands: &operands[start..],
                values: before,
                inputs: &self.inputs,
                params: self.params,
            },
            output,
            output_shape: shape,
            saved: &mut saved[index],
            recording,
        });
        if recording {
            self.tape.nodes[index].op = Some(Box::new(op));
        }
        var
    }

    /// The same elements under another shape, sharing value and gradient memory with `x`.
    pub(crate) fn alias(&mut self, name: &'static str, x: Var, shape: Shape) -> Var {
        let index = self.index(x);
        let start = self.tape.operands.len() as u32;
        self.tape.operands.push(index as u32);
        let requires_grad = self.tape.nodes[index].requires_grad;
        let source = Source::Alias(self.tape.root(index) as u32);
        self.push(Node {
            name,
            shape,
            source,
            operands: start..start + 1,
            op: None,
            macs: 0,
            requires_grad,
        })
    }

    /// Ends the step because of a shape; in [`Mode::Check`] notes it and goes on with a scalar.
    #[track_caller]
    pub(crate) fn refuse(&mut self, op: &'static str, reason: &str, shapes: &[Shape]) -> Shape {
        let listed = shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ");
        let reason = format!("{reason} (operands: {listed})");
        if self.mode != Mode::Check {
            panic!("{op}: {reason}");
        }
        // What follows the first fault is noise: only the first is kept.
        self.fault.get_or_insert(Error::Shape { op, reason });
        Shape::default()
    }

    /// In [`Mode::Check`]: the first shape error, if any.
    pub(crate) fn take_fault(&mut self) -> Option<Error> {
        self.fault.take()
    }

    /// The operations recorded so far, for a model summary.
    pub(crate) fn summary_nodes(&self) -> impl Iterator<Item = SummaryNode<'_>> {
        let ops = self.tape.nodes.iter().filter(|node| !node.operands.is_empty());
        ops.map(|node| {
            let range = node.operands.start as usize..node.operands.end as usize;
            let operands = self.tape.operands[range].iter().map(|&i| &self.tape.nodes[i as usize]);
            let params = operands.filter_map(|operand| match operand.source {
                Source::Param { id, .. } => Some((self.params.name(id), self.params.shape(id))),
                _ => None,
            });
            SummaryNode {
                name: node.name,
                shape: node.shape,
                params: params.collect(),
                macs: node.macs,
            }
        })
    }

    /// The counters of the next random operation: the step, and its number within the step.
    pub(crate) fn next_random(&mut self) -> (u64, u64) {
        self.random_ops += 1;
        (self.step, self.random_ops - 1)
    }

    /// The shape of a value.
    pub fn shape(&self, var: Var) -> Shape {
        self.tape.nodes[self.index(var)].shape
    }

    /// The elements of a value in row-major order.
    pub fn value(&self, var: Var) -> &[f32] {
        let Tape { nodes, values, .. } = &*self.tape;
        let all =
            Operands { nodes, operands: &[], values, inputs: &self.inputs, params: self.params };
        all.node(self.index(var))
    }

    /// The elements of a value as an `ndarray` view.
    pub fn view(&self, var: Var) -> ArrayViewD<'_, f32> {
        ArrayViewD::from_shape(IxDyn(&self.shape(var)), self.value(var))
            .expect("a node's buffer fits its shape")
    }

    /// A copy of a value.
    pub fn tensor(&self, var: Var) -> Tensor {
        Tensor::from_vec(self.value(var).to_vec(), self.shape(var))
    }

    /// The only element of a value, such as a loss.
    ///
    /// # Panics
    /// If the value does not have exactly one element.
    #[track_caller]
    pub fn item(&self, var: Var) -> f32 {
        match self.value(var) {
            [item] => *item,
            _ => panic!("item: a value of shape {} is not a single number", self.shape(var)),
        }
    }

    /// The record so far, one line per node: number, operation, operands, shape.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.tape.nodes.iter().enumerate() {
            let range = node.operands.start as usize..node.operands.end as usize;
            let operands: Vec<_> =
                self.tape.operands[range].iter().map(|operand| format!("%{operand}")).collect();
            let name = match node.source {
                Source::Param { id, .. } => self.params.name(id),
                _ => node.name,
            };
            text += &format!("%{index} = {name}({}) -> {}\n", operands.join(", "), node.shape);
        }
        text
    }

    /// The gradient of `loss` with respect to every parameter and every [`Graph::leaf`].
    ///
    /// # Panics
    /// If `loss` is not a single number, or the graph does not record ([`Mode::Train`]).
    #[track_caller]
    pub fn backward(self, loss: Var) -> Gradients<'t> {
        let shape = self.shape(loss);
        assert!(
            shape.numel() == 1,
            "backward: the loss has shape {shape}; reduce it to a single number, or give \
             backward_with() an upstream gradient"
        );
        self.backward_with(loss, &[1.0])
    }

    /// The transposed Jacobian of `output` times `upstream`, a vector of the same number of
    /// elements: with `upstream` the gradient of some later loss, this is that loss's gradient.
    ///
    /// # Panics
    /// If the lengths differ, or the graph does not record ([`Mode::Train`]).
    #[track_caller]
    pub fn backward_with(self, output: Var, upstream: &[f32]) -> Gradients<'t> {
        assert_eq!(self.mode, Mode::Train, "backward: this graph was made to evaluate");
        let last = self.index(output);
        let numel = self.shape(output).numel();
        assert_eq!(upstream.len(), numel, "backward: upstream gradient of the wrong length");

        let Graph { tape, params, inputs, id, accumulate, .. } = self;
        let Tape {
            nodes,
            operands,
            values,
            grads,
            grad_written,
            saved,
            param_grads,
            param_written,
            ..
        } = &mut *tape;
        grad_written.resize(nodes.len(), false);
        param_written.resize(params.ids().len(), accumulate);
        if param_grads.len() != params.flat().len() {
            param_grads.clear();
            param_grads.resize(params.flat().len(), 0.0);
        }

        let mut seed = InputGrads {
            nodes,
            operands: &[last as u32],
            grads,
            grad_written,
            params,
            param_grads,
            param_written,
        };
        seed.add_to(0, |i| upstream[i]);

        for index in (0..=last).rev() {
            let node = &nodes[index];
            let (Some(op), true) = (&node.op, grad_written[index]) else { continue };
            let operands = &operands[node.operands.start as usize..node.operands.end as usize];
            // Operands come first, so one split parts this node's gradient from theirs.
            let (grads_before, grads_after) = grads.split_at_mut(index);
            op.backward(BackwardCtx {
                inputs: Operands { nodes, operands, values, inputs: &inputs, params },
                output: &values[index],
                output_shape: node.shape,
                d_output: &grads_after[0],
                saved: &saved[index],
                grads: InputGrads {
                    nodes,
                    operands,
                    grads: grads_before,
                    grad_written,
                    params,
                    param_grads,
                    param_written,
                },
            });
        }
        // Zeros where nothing was written: unused parameters, and the padding between parameters,
        // which may hold the gradients of another model that the tape has served.
        let mut end = 0;
        for param in params.ids().filter(|&id| !params.is_buffer(id)) {
            let range = params.range(param);
            param_grads[end..range.start].fill(0.0);
            end = range.end;
            if !param_written[param.index()] {
                param_grads[range].fill(0.0);
            }
        }
        param_grads[end..].fill(0.0);
        Gradients::new(tape, id)
    }

    /// The node number of a variable of this graph.
    #[track_caller]
    fn index(&self, var: Var) -> usize {
        assert_eq!(
            var.step, self.id,
            "a Var belongs to the step that made it: this one comes from another Graph"
        );
        var.index as usize
    }
}
