//! The report at the end of a run: one HTML file that explains what happened.
//!
//! It needs no network and no script: style and charts are part of the file, pictures are data. It
//! can be read on a phone, on paper, and by those who do not see the charts.
//!
//! ```text
//! a run that ends    [`HtmlReport`], a callback: with mistakes, filters and the network
//! a run directory    [`Report::of_run_dir`]: with what its checkpoints and its log tell
//! a log of anyone    [`Report::of_log`]: with the curves and what other rules would have done
//!            -> Report -> to_html
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `gather` | from a run, a directory or a log to a [`Report`] |
//! | `words` | the verdict in plain words |
//! | `page` | the parts of the page, in their order |
//! | `curves` | what is drawn over the epochs |
//! | `chart`, `drawing`, `scale` | line charts: what they show, as SVG, their axes |
//! | `confusion`, `pictures`, `png` | the confusion matrix; examples and filters as pictures |
//! | `html` | escaping, tables |

mod chart;
mod confusion;
mod curves;
mod drawing;
mod gather;
mod html;
mod page;
mod pictures;
mod png;
mod scale;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Entry, Roles};
use crate::error::Result;
use crate::metrics::ConfusionMatrix;
use crate::monitor::{Best, EarlyStopping, Observation, Verdict, verdicts};
use crate::nn::Summary;
use crate::trainer::{Callback, EndInfo, JsonLines, RunInfo, Stop};
use png::Image;

/// What is known about a run.
pub struct Report {
    title: String,
    history: Vec<Observation>,
    spec: EarlyStopping,
    /// Whether the run was stopped by that specification, which otherwise is only assumed.
    own: bool,
    /// What the specification makes of each evaluation.
    verdicts: Vec<Verdict>,
    stop: Option<Stop>,
    /// The rules to compare the run's own with.
    rules: Vec<EarlyStopping>,
    /// The evaluations that were the first after a resume.
    resumed: BTreeSet<usize>,
    config: Vec<(String, String)>,
    /// Further facts for the first lines.
    facts: Vec<(&'static str, String)>,
    checkpoints: Vec<(Entry, Roles)>,
    network: Network,
    filters: Vec<Image>,
    validation: Option<Validation>,
    warnings: Vec<String>,
}

/// What is known about the model.
enum Network {
    Unknown,
    Summary(Summary),
    /// Names and shapes of the tensors in a checkpoint.
    Tensors(Vec<(String, Vec<usize>)>),
}

/// What the best weights make of the validation data.
struct Validation {
    confusion: ConfusionMatrix,
    class_names: Vec<String>,
    mistakes: Vec<Mistake>,
}

/// A validation example that was taken for another class.
struct Mistake {
    index: usize,
    label: usize,
    predicted: usize,
    loss: f32,
    image: Option<Image>,
}

impl Report {
    /// A report on recorded evaluations, judged by `spec`.
    ///
    /// # Errors
    /// Those of [`EarlyStopping::check`].
    pub fn new(
        title: impl Into<String>,
        history: Vec<Observation>,
        spec: EarlyStopping,
    ) -> Result<Self> {
        Ok(Report {
            title: title.into(),
            verdicts: verdicts(&spec, &history)?,
            rules: usual_rules(&spec),
            history,
            spec,
            own: true,
            stop: None,
            resumed: BTreeSet::new(),
            config: Vec::new(),
            facts: Vec::new(),
            checkpoints: Vec::new(),
            network: Network::Unknown,
            filters: Vec::new(),
            validation: None,
            warnings: Vec::new(),
        })
    }

    /// Compares with these rules instead of the usual ones.
    ///
    /// # Errors
    /// Those of [`EarlyStopping::check`].
    pub fn rules(mut self, rules: Vec<EarlyStopping>) -> Result<Self> {
        rules.iter().try_for_each(EarlyStopping::check)?;
        self.rules = rules;
        Ok(self)
    }

    /// How many evaluations it is about.
    pub fn evaluations(&self) -> usize {
        self.history.len()
    }

    /// The page.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// Writes the page to a file, completely or not at all.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let html = self.to_html();
        crate::checkpoint::write_atomically(path, |file| {
            use std::io::Write as _;
            file.write_all(html.as_bytes())
        })
    }

    fn best(&self) -> Option<Best> {
        self.verdicts.last().and_then(|verdict| verdict.best)
    }

    fn metric(&self) -> &str {
        self.spec.metric()
    }
}

/// The rules that are compared unless others are asked for, on the metric of `own`.
fn usual_rules(own: &EarlyStopping) -> Vec<EarlyStopping> {
    let texts = [
        "patience(2)",
        "patience(3)",
        "patience(5)",
        "patience(10)",
        "gl(5)",
        "pq(0.5,k=5)",
        "up(3,k=3)",
    ];
    let rules = texts.map(|text| text.parse::<EarlyStopping>().expect("a rule"));
    let rules = rules.into_iter().map(|rule| rule.monitor(own.metric()).mode(own.direction()));
    rules.filter(|rule| rule != own && rule.check().is_ok()).collect()
}

/// Writes a [`Report`] when a run ends.
///
/// It is also written when the run was interrupted, then without the parts for which the validation
/// data would have to be evaluated once more. Where a log called [`JsonLines::FILE_NAME`] lies
/// beside it, earlier interruptions are taken from there; that it cannot be read is a warning, on
/// the page and of the run.
pub struct HtmlReport {
    path: PathBuf,
    /// The step at which this process took the run over.
    resumed_at: Option<u64>,
}

impl HtmlReport {
    /// Writes to the file at `path`, replacing an older report.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        HtmlReport { path: path.into(), resumed_at: None }
    }
}

impl Callback for HtmlReport {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        // At the end of a long run it would be too late to find out.
        let dir = self.path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(dir).map_err(|e| crate::Error::io("create", dir, e))?;
        self.resumed_at = run.resumed_from.as_ref().map(|_| run.step);
        Ok(())
    }

    fn on_end(&mut self, end: &EndInfo<'_>) -> Result<()> {
        let mut report = Report::of_ended(end)?;
        report.add_resume(self.resumed_at);
        let log = report.add_resumes_of_log(&self.path.with_file_name(JsonLines::FILE_NAME));
        report.write(&self.path)?;
        log
    }
}
