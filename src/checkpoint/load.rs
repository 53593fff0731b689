//! Saved weights into a model: all or nothing.

use super::state::TrainingState;
use crate::error::{Error, Result};
use crate::params::Params;

impl TrainingState<'_> {
    /// Copies the saved parameters into `params`, by name.
    ///
    /// # Errors
    /// [`Error::Config`] listing every parameter that is missing in the checkpoint, unexpected by
    /// the model, or of another shape. `params` is then unchanged.
    pub fn load_into(&self, params: &mut Params) -> Result<()> {
        let mut faults = Vec::new();
        let mut found = Vec::with_capacity(self.params.len());
        for saved in &self.params {
            match params.id(&saved.name) {
                None => faults.push(format!("{:?} is not in the model", saved.name)),
                Some(id) if *params.shape(id) != *saved.shape => faults.push(format!(
                    "{:?} has shape {:?} in the checkpoint and {} in the model",
                    saved.name,
                    saved.shape,
                    params.shape(id)
                )),
                Some(id) => found.push((id, saved)),
            }
        }
        let named = |name: &str| self.params.iter().any(|saved| saved.name == name);
        for id in params.ids().filter(|&id| !named(params.name(id))) {
            faults.push(format!("{:?} is not in the checkpoint", params.name(id)));
        }
        if !faults.is_empty() {
            return Err(Error::config("parameters", faults.join("; ")));
        }
        for (id, saved) in found {
            params.get_mut(id).copy_from_slice(&saved.data);
        }
        Ok(())
    }
}
