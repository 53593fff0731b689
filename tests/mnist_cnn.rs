//! The main job as its users run it: the example's own process, interrupted and resumed.
#![cfg(all(feature = "gzip", feature = "signals"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// The example, built in the same way as this test. `cargo test` has done so already, unless only
/// this test was asked for.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.ancestors().nth(2).expect("TARGET/PROFILE/deps/TEST");
        let features: Vec<&str> = [
            cfg!(feature = "gzip").then_some("gzip"),
            cfg!(feature = "signals").then_some("signals"),
            cfg!(feature = "png").then_some("png"),
            cfg!(feature = "cli").then_some("cli"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        build.args(["build", "--quiet", "--example", "mnist_cnn", "--no-default-features"]);
        build.args(["--features", &features.join(",")]);
        build.arg("--target-dir").arg(profile.parent().expect("TARGET/PROFILE"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success());
        profile.join("examples/mnist_cnn")
    })
}

fn mnist_cnn(run_dir: &Path, arguments: &str) -> Output {
    Command::new(example())
        .args(["--epochs", "2", "--batch", "128", "--json", "--run-dir"])
        .arg(run_dir)
        .args(arguments.split_whitespace())
        .output()
        .expect("the example runs")
}

/// The JSON object at the end of a successful run.
fn json(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    serde_json::from_str(stdout.lines().last().expect("some output"))
        .expect("JSON in the last line")
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ferrotape-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[test]
fn interrupted_and_resumed_is_uninterrupted() {
    let scratch = scratch("resume");
    let whole = json(&mnist_cnn(&scratch.join("whole"), "--threads 2"));
    assert!(whole["test_accuracy"].as_f64().unwrap() > 0.9, "{whole}");
    assert_eq!((&whole["epochs"], &whole["seed"]), (&2.into(), &0.into()));

    // In the first step, in the middle, at the end of the first epoch before it is evaluated, one
    // step later, and in the last step; each piece with another number of threads.
    let steps_per_epoch = 7_000usize.div_ceil(128);
    let stops = [1, 20, steps_per_epoch, steps_per_epoch + 1, 2 * steps_per_epoch];
    let pieces = scratch.join("pieces");
    for (i, stop) in stops.iter().enumerate() {
        let resume = if i == 0 { "" } else { "--resume" };
        let output =
            mnist_cnn(&pieces, &format!("--max-steps {stop} --threads {} {resume}", i + 1));
        assert_eq!(output.status.code(), Some(130), "{output:?}");
    }
    let resumed = json(&mnist_cnn(&pieces, "--resume"));
    for key in ["state_digest", "valid_loss", "best_epoch", "test_accuracy", "stop_reason"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn a_run_is_never_overwritten_and_never_begun_twice() {
    let scratch = scratch("refuse");
    let fresh = mnist_cnn(&scratch, "--resume --max-steps 1");
    assert_eq!(fresh.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&fresh.stdout).contains("starting afresh"));

    let again = mnist_cnn(&scratch, "");
    assert_eq!(again.status.code(), Some(1));
    let message = String::from_utf8_lossy(&again.stderr);
    assert!(message.contains("already holds a run"), "{message}");

    let other_seed = mnist_cnn(&scratch, "--resume --seed 1");
    assert_eq!(other_seed.status.code(), Some(1));
    let message = String::from_utf8_lossy(&other_seed.stderr);
    assert!(message.contains("the saved run has"), "{message}");

    json(&mnist_cnn(&scratch, "--resume"));
    let finished = mnist_cnn(&scratch, "--resume");
    assert_eq!(finished.status.code(), Some(1));
    let message = String::from_utf8_lossy(&finished.stderr);
    assert!(message.contains("this run is finished"), "{message}");
    std::fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn a_run_goes_on_when_nobody_reads_it_and_says_what_could_not_be_written() {
    let scratch = scratch("unread");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(example())
        .args(["--epochs", "1", "--batch", "128", "--json", "--run-dir"])
        .arg(&scratch)
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));

    // A directory stands where the report should go.
    std::fs::remove_file(scratch.join("report.html")).unwrap();
    std::fs::create_dir(scratch.join("report.html")).unwrap();
    let output = mnist_cnn(&scratch, "--resume");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("warning: "), "{output:?}");
    assert!(!text.contains("\nreport: "), "{text}");
    std::fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn bad_arguments_and_missing_data_are_explained() {
    let scratch = scratch("arguments");
    for (arguments, expected) in [("--net huge", "article or large"), ("--nonsense", "--nonsense")]
    {
        let output = mnist_cnn(&scratch, arguments);
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(expected), "{message}");
    }
    let output = mnist_cnn(&scratch, "--data no/such/directory");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("no/such/directory"), "{message}");
    let _ = std::fs::remove_dir_all(&scratch);
}
