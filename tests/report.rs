//! The report as a file: well formed, complete, silent about nothing, whatever the run was like.
//!
//! Every page is also written to `report/` in Cargo's directory for tests (`CARGO_TARGET_TMPDIR`),
//! to be looked at.

use std::path::{Path, PathBuf};

use ferrotape::Params;
use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::ArrayDataset;
use ferrotape::monitor::{EarlyStopping, Observation};
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::{Sgd, StepLr};
use ferrotape::report::{HtmlReport, Report};
use ferrotape::trainer::{JsonLines, Resume, Trainer};

fn out(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

/// Checks a page and returns it. Every element is closed in its order (void ones by `/>`), nothing
/// is loaded from anywhere, no number that is none has got into a drawing.
fn checked(html: String) -> String {
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a document");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        assert!(name.chars().all(char::is_alphanumeric), "<{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed by </{name}>");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        if ["rect", "path", "circle", "text", "tspan"].contains(&name) {
            assert!(!tag.contains("NaN") && !tag.contains("inf"), "<{tag}>");
        }
        rest = &rest[end + 1..];
        // Style is not markup.
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style>").unwrap()..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for trace in ["http:", "https:", "<script", "url(", "@import"] {
        assert!(!html.contains(trace), "{trace}");
    }
    html
}

fn page(name: &str, history: Vec<Observation>, spec: &str) -> String {
    let report = Report::new(name, history, spec.parse().unwrap()).unwrap();
    report.write(out(&format!("{name}.html"))).unwrap();
    checked(report.to_html())
}

/// A run that learns and then overfits.
fn overfitting(n: u64) -> Vec<Observation> {
    let seen = |t: u64| {
        let x = t as f64 / n as f64;
        let noise = 0.01 * (7.3 * t as f64).sin();
        Observation {
            step: 250 * t,
            lr: Some(0.1 * 0.5f64.powi((4.0 * x) as i32)),
            valid_loss_se: Some(0.02),
            elapsed: Some(61.0 * t as f64),
            ..Observation::new(t, 0.4 + 0.9 * (x - 0.5).powi(2) + noise)
        }
        .with_train_loss(0.8 * (-3.0 * x).exp())
        .with_metric("accuracy", 0.95 - 0.3 * (x - 0.5).powi(2))
        .with_metric("train_accuracy", 1.0 - 0.1 * (-3.0 * x).exp())
    };
    (1..=n).map(seen).collect()
}

#[test]
fn overfitting_is_shaded_and_judged() {
    let html = page("overfitting", overfitting(40), "any(patience(12),gl(60),pq(200,k=5))");
    assert!(html.contains("zone overfitting"));
    assert!(html.contains("begun to memorise"));
    assert!(html.contains(">best, anchor 17<"), "best is marked");
    assert!(html.contains("would stop"));
    assert!(html.contains("this run") && html.contains("<code>gl(60)</code>"));
}

#[test]
fn long_runs_are_drawn_too() {
    let html = page("long", overfitting(300), "patience(60)");
    assert!(html.len() < 250_000, "{}", html.len());
}

#[test]
fn one_evaluation_is_enough() {
    let html = page("one", overfitting(1), "patience(3)");
    assert!(html.contains("1 epoch on record"));
    assert!(html.contains("0.6") && html.contains("class=\"point valid\""));
}

#[test]
fn values_that_are_none_are_gaps_and_are_named() {
    let mut history = overfitting(12);
    history[4].valid_loss = f64::NAN;
    history[5].valid_loss = f64::INFINITY;
    history[6].train_loss = Some(f64::NAN);
    history[7].valid_loss_se = Some(f64::NAN);
    let html = page("gaps", history, "patience(9), nan_policy=count_as_bad");
    assert!(html.contains("epoch 5: validation NaN"));
    assert!(html.contains("not finite 5"));

    let mut history = overfitting(3);
    history.iter_mut().for_each(|seen| seen.valid_loss = f64::NAN);
    history.iter_mut().for_each(|seen| seen.train_loss = None);
    let html = page("nothing", history, "patience(9), nan_policy=count_as_bad");
    assert!(html.contains("no finite value to draw"));
    assert!(html.contains("none is usable"));
    page("empty", Vec::new(), "patience(1)");
}

#[test]
fn a_log_of_losses_alone_gives_a_page() {
    // Regression, another program, no training loss, negative losses.
    let history: Vec<_> = (1..=9).map(|t| Observation::new(t, -1.0 / t as f64)).collect();
    let html = page("losses", history, "patience(2)");
    assert!(!html.contains(">training<") && !html.contains("Accuracy"));
    assert!(html.contains("cannot say"), "pq needs a training loss");
}

#[test]
fn text_of_others_means_nothing() {
    let evil = "<script>alert(\"1\")</script>&'";
    let history = overfitting(3).into_iter().map(|seen| seen.with_metric("m", 1.0)).collect();
    let report = Report::new(evil, history, EarlyStopping::patience(3)).unwrap();
    let html = checked(report.to_html());
    assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"));
}

/// Blobs of a hundred classes, as images of the given shape.
fn blobs(shape: &[usize], classes: usize, n: usize, noise: f32) -> ArrayDataset {
    let size: usize = shape.iter().product();
    let wave = |i: usize, k: usize| ((i * 37 + k * k * 11) % 97) as f32 / 97.0 - 0.5;
    let values: Vec<f32> = (0..n)
        .flat_map(|i| {
            (0..size)
                .map(move |k| ((i % classes) * (k + 3) % 7) as f32 / 3.5 - 1.0 + noise * wave(i, k))
        })
        .collect();
    let labels = (0..n).map(|i| i % classes).collect();
    let names = (0..classes).map(|class| format!("class <{class}> & more")).collect();
    ArrayDataset::new("blobs", shape, values, labels, classes).unwrap().with_class_names(names)
}

fn train(dir: &Path, name: &str, shape: &[usize], classes: usize, epochs: u64) -> String {
    let (train, valid) = (blobs(shape, classes, 400, 3.0), blobs(shape, classes, 200, 5.0));
    let mut params = Params::new(1);
    let size = shape.iter().product();
    let model = Sequential::new(&mut params, [Layer::Flatten, Layer::linear(size, classes)]);
    let path = dir.join("report.html");
    let outcome = Trainer::new(model, params, Sgd::new(0.1).momentum(0.9))
        .schedule(StepLr::new(3, 0.5))
        .monitor("any(patience(4),gl(40))".parse::<EarlyStopping>().unwrap())
        .checkpoints(Checkpoints::open(dir).unwrap())
        .resume(Resume::Auto)
        .epochs(epochs)
        .callback(HtmlReport::new(&path))
        .callback(JsonLines::new(dir.join(JsonLines::FILE_NAME)))
        .fit(&train, &valid)
        .unwrap();
    assert!(!outcome.history.is_empty());
    std::fs::copy(&path, out(&format!("{name}.html"))).unwrap();
    checked(std::fs::read_to_string(path).unwrap())
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ferrotape-report-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[test]
fn a_run_knows_its_mistakes_filters_network_and_resumes() {
    let dir = scratch("run");
    let html = train(&dir, "run", &[3, 8, 8], 12, 2);
    assert!(!html.contains(">resumed<"));
    let html = train(&dir, "run", &[3, 8, 8], 12, 6);
    assert!(html.contains(">resumed<"));
    for part in [
        "Confusion matrix of 12 classes",
        "Worst mistakes",
        "data:image/png;base64,",
        "First-layer filters",
        "alt=\"filter 11\"",
        "multiply-adds",
        "validation data",
        "ckpt-0000000",
        "class &lt;0&gt; &amp; more taken for",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("class <"));

    // The directory alone tells less, the log alone still less.
    let html = checked(Report::of_run_dir(&dir).unwrap().to_html());
    assert!(html.contains(">resumed<") && html.contains("state digest"));
    let html = checked(Report::of_log(dir.join(JsonLines::FILE_NAME)).unwrap().to_html());
    assert!(html.contains(">resumed<") && html.contains("any(patience(4),gl(40))"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_log_that_cannot_be_read_costs_a_report_its_seams_only() {
    let dir = scratch("log");
    let log = dir.join(JsonLines::FILE_NAME);
    train(&dir, "log", &[20], 3, 2);
    train(&dir, "log", &[20], 3, 4);

    // A damaged line costs that line.
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.iter().position(|&byte| byte == b'\n').unwrap() - 5;
    bytes[at..at + 2].copy_from_slice(b"\xff\xfe");
    std::fs::write(&log, bytes).unwrap();
    let html = checked(Report::of_run_dir(&dir).unwrap().to_html());
    assert!(html.contains(">resumed<") && !html.contains("class=\"warnings\""));

    // No file at all: a directory of that name.
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let html = checked(Report::of_run_dir(&dir).unwrap().to_html());
    assert!(html.contains("cannot open") && !html.contains(">resumed<"));

    let (train, valid) = (blobs(&[20], 3, 40, 3.0), blobs(&[20], 3, 20, 5.0));
    let mut params = Params::new(1);
    let model = Sequential::new(&mut params, [Layer::linear(20, 3)]);
    let outcome = Trainer::new(model, params, Sgd::new(0.1))
        .epochs(1)
        .callback(HtmlReport::new(dir.join("other.html")))
        .fit(&train, &valid)
        .unwrap();
    assert!(outcome.warnings[0].contains("cannot open"), "{:?}", outcome.warnings);
    let html = checked(std::fs::read_to_string(dir.join("other.html")).unwrap());
    assert!(html.contains("cannot open"), "the page says so, too");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_hundred_classes_that_are_no_images() {
    let dir = scratch("many");
    let html = train(&dir, "many", &[20], 100, 2);
    assert!(html.contains("Confusion matrix of 100 classes"));
    assert!(html.contains("Worst mistakes") && !html.contains("data:image"));
    std::fs::remove_dir_all(dir).unwrap();
}
