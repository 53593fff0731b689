//! What a backward pass leaves behind.

use super::{Source, Tape, Var};
use crate::params::{ParamId, Params};

/// The gradients of one step, in the tape's own buffers. An optimizer reads
/// [`Gradients::flat`]; the next [`Graph`](super::Graph) on the same tape may begin once this
/// value is gone.
pub struct Gradients<'t> {
    tape: &'t mut Tape,
    step: u32,
}

impl<'t> Gradients<'t> {
    pub(super) fn new(tape: &'t mut Tape, step: u32) -> Self {
        Gradients { tape, step }
    }

    /// The gradient of every parameter, in the layout of [`Params::flat`]. Parameters that the
    /// loss does not depend on have zeros.
    pub fn flat(&self) -> &[f32] {
        &self.tape.param_grads
    }

    /// The gradients, to change them before the update (clipping, averaging over workers).
    pub fn flat_mut(&mut self) -> &mut [f32] {
        &mut self.tape.param_grads
    }

    /// Brings the buffers of the model up to date with this step, such as the running statistics
    /// of batch normalisation. An optimizer's step does it too.
    pub fn update_buffers(&self, params: &mut Params) {
        for (node, saved) in self.tape.nodes.iter().zip(&self.tape.saved) {
            if let Some(op) = &node.op {
                op.update_buffers(saved, params);
            }
        }
    }

    /// The gradient of one parameter of the store this step ran with.
    ///
    /// # Panics
    /// If `id` names a buffer.
    #[track_caller]
    pub fn param(&self, params: &Params, id: ParamId) -> &[f32] {
        assert!(!params.is_buffer(id), "buffer {:?} has no gradient", params.name(id));
        &self.tape.param_grads[params.range(id)]
    }

    /// The gradient of any value of the step, or `None` if none reached it.
    ///
    /// # Panics
    /// If `var` comes from another step.
    #[track_caller]
    pub fn wrt(&self, var: Var) -> Option<&[f32]> {
        assert_eq!(var.step, self.step, "a Var belongs to the step that made it");
        let tape = &*self.tape;
        let root = tape.root(var.index as usize);
        if let Source::Param { id, offset } = tape.nodes[root].source {
            let range = offset..offset + tape.nodes[root].shape.numel();
            return tape.param_written[id.index()].then(|| &tape.param_grads[range]);
        }
        tape.grad_written[root].then(|| tape.grads[root].as_slice())
    }
}
