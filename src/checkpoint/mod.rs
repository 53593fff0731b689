//! Checkpoints that cannot be lost.
//!
//! One file is one complete training state. A [`Checkpoints`] manages a run directory:
//!
//! ```no_run
//! use ferrotape::checkpoint::{Checkpoints, Metric, TrainingState};
//!
//! # fn main() -> ferrotape::Result<()> {
//! let mut checkpoints = Checkpoints::open("runs/mnist")?.keep_last(3).keep_best(1);
//! let state = match checkpoints.load_latest()? {
//!     Some(loaded) => loaded.state, // the newest one that verifies to the last bit
//!     None => TrainingState::default(),
//! };
//! let saved = checkpoints.save(&state, Some(Metric::minimize("valid_loss", 0.25)))?;
//! println!("{} is on disk, as safe as the disk is", saved.path.display());
//! # Ok(())
//! # }
//! ```
//!
//! What each file of this room is for:
//!
//! | file | idea |
//! |---|---|
//! | `state` | the content, in memory |
//! | `format`, `index` | the bytes around the sections; the rules of the tensor index |
//! | `codec` | metadata sections as bytes: the only place that knows bincode |
//! | `writer`, `reader` | state to bytes; bytes to state, believing nothing |
//! | `vfs` | what is asked of a file system |
//! | `commit` | bytes to a file that survives a power cut at any moment |
//! | `manager` | the run directory: lock, generations, recovery |
//! | `background` | saving while training goes on |
//! | `load` | saved weights into a model |
//! | `retention` | which generations may be deleted |

mod background;
mod codec;
mod commit;
mod format;
mod index;
mod load;
mod manager;
mod reader;
mod retention;
mod state;
pub mod vfs;
mod writer;

pub use crate::error::CheckpointFault;
pub use background::BackgroundSaver;
pub(crate) use commit::write_atomically;
pub(crate) use index::check_names;
pub use index::{Dtype, Role, TensorInfo};
pub use load::{LoadOptions, LoadReport, Mismatch};
pub use manager::{Checkpoints, Entry, Loaded, Saved, Skipped, list};
pub use reader::CheckpointFile;
pub use retention::{Retention, Roles};
pub use state::{
    Cursor, History, Metric, NamedTensor, OptimizerState, ScheduleState, TrainingState,
};
