//! `ferrotape train`, `eval` and `predict` as their users meet them: every data format from files
//! to predictions, exact resumption. What is said about files with mistakes is in `config.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::program::{ferrotape, json, ok, program, start, unread};
use common::scratch;
use ferrotape::checkpoint::{NamedTensor, TrainingState};
use ferrotape::config::{Names, Part, Saved};
use serde_json::Value;

mod common;

/// An empty directory.
fn dir(name: &str) -> PathBuf {
    let dir = scratch("cli-train", name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

/// Pixels of an image of 6 x 6: a bright row says its class, with some noise.
fn image(i: usize) -> Vec<u8> {
    let noise = |p: usize| ((i * 7919 + p * 104_729) % 61) as u8;
    (0..36).map(|p| noise(p) + if p / 6 == 2 * (i % 3) { 190 } else { 0 }).collect()
}

fn idx(dims: &[usize], data: &[u8]) -> Vec<u8> {
    let lengths = dims.iter().flat_map(|&n| (n as u32).to_be_bytes());
    [0, 0, 8, dims.len() as u8].into_iter().chain(lengths).chain(data.iter().copied()).collect()
}

/// A pair of IDX files with `n` images in three classes.
fn write_idx(dir: &Path, prefix: &str, n: usize) {
    let pixels: Vec<u8> = (0..n).flat_map(image).collect();
    let labels: Vec<u8> = (0..n).map(|i| (i % 3) as u8).collect();
    fs::write(dir.join(format!("{prefix}images-idx3-ubyte")), idx(&[n, 6, 6], &pixels)).unwrap();
    fs::write(dir.join(format!("{prefix}labels-idx1-ubyte")), idx(&[n], &labels)).unwrap();
}

fn write_png(path: &Path, pixels: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 6, 6);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

/// A ZIP archive of files that are stored as they are.
fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let crc = |data: &[u8]| {
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
    };
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc(data).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes().repeat(2));
        common.extend([name.len() as u8, 0, 0, 0]);
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
        directory.extend((body.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        body.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
    }
    let (at, size, n) = (body.len() as u32, directory.len() as u32, files.len() as u8);
    body.extend(directory);
    body.extend([b"PK\x05\x06\0\0\0\0", &[n, 0, n, 0][..]].concat());
    body.extend([&size.to_le_bytes()[..], &at.to_le_bytes(), &[0, 0]].concat());
    body
}

fn npy(descr: &str, shape: &str, data: Vec<u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &data].concat()
}

const MLP: &str = "[model]\nlayers = [\"flatten\", { linear = 16 }, \"relu\", { linear = 3 }]\n\
                   [optimizer]\nlr = 0.1\nmomentum = 0.5\n";

/// Writes a file with this `[data]`, and a small network.
fn write_run(dir: &Path, data: &str) -> String {
    let rest = "[train]\nepochs = 6\nbatch_size = 8\n[run]\ndir = \"run\"\n";
    fs::write(dir.join("run.toml"), format!("[data]\n{data}\n{MLP}{rest}")).unwrap();
    path(dir, "run.toml")
}

/// The last line of a run's log.
fn last_line(run: &str) -> Value {
    let log = fs::read_to_string(Path::new(run).join("log.jsonl")).unwrap();
    serde_json::from_str(log.lines().last().unwrap()).unwrap()
}

#[test]
fn the_sample_in_the_repository_trains_and_what_it_learnt_is_used() {
    let dir = dir("sample");
    let (file, run) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mnist.toml"), path(&dir, "run"));
    let check = ok(&["train", file, "--check"]);
    assert!(check.contains("8000 examples to train on, 1000 to validate, 1000 to test"), "{check}");
    assert!(check.contains("[1, 16, 10, 10]"), "{check}");
    // What the run would say when it begins.
    assert!(!check.contains("note:"), "{check}");
    let warning = "patience(5) can never stop a run of 5 evaluations: use a smaller patience";
    let check = ok(&["train", file, "--check", "--epochs", "5"]);
    assert!(check.ends_with(&format!("note: {warning}\n")), "{check}");
    let check = json(&["train", file, "--check", "--epochs", "5"]);
    assert_eq!(check["warnings"], serde_json::json!([warning]));
    assert_eq!((&check["train_examples"], &check["test_examples"]), (&8000.into(), &1000.into()));
    assert!(check["parameters"].as_u64().unwrap() > 10_000, "{check}");
    assert!(!Path::new(&run).exists());

    let found = json(&["train", file, "--epochs", "1", "--run-dir", &run, "--threads", "2"]);
    assert_eq!((&found["epochs"], &found["steps"]), (&Value::from(1), &Value::from(250)));
    assert!(found["test_accuracy"].as_f64().unwrap() > 0.6, "{found}");

    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist");
    let valid = json(&["eval", &run, data, "--split", "valid"]);
    assert_eq!(valid["loss"], last_line(&run)["valid_loss"], "the same bits");
    assert_eq!(valid["loss"], found["best_value"]);
    let test = json(&["eval", &run, data, "--split", "test"]);
    assert_eq!(test["loss"], found["test_loss"]);
    assert_eq!(json(&["eval", &run, data])["examples"], 10_000);

    let images = path(Path::new(data), "images-idx3-ubyte.gz");
    let lines = ok(&["predict", &run, &images, "--json"]);
    assert_eq!(lines.lines().count(), 10_000);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["index"], 0);
    let all = first["probabilities"].as_object().unwrap();
    assert_eq!(all.len(), 10);
    assert!((all.values().map(|p| p.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(all[first["class"].as_str().unwrap()], first["probability"]);
}

#[test]
fn a_resumed_run_ends_with_the_same_digest() {
    let dir = dir("resume");
    write_idx(&dir, "", 90);
    let file = write_run(&dir, "path = \".\"\nclasses = 3");
    let [straight, resumed] = ["straight", "resumed"].map(|name| path(&dir, name));
    let whole = json(&["train", &file, "--run-dir", &straight]);
    json(&["train", &file, "--run-dir", &resumed, "--epochs", "2"]);
    let (code, _, error) = ferrotape(&["train", &file, "--run-dir", &resumed]);
    assert_eq!(code, 1);
    assert!(error.contains("already holds a run, which is never overwritten"), "{error}");
    let rest = json(&["train", &file, "--run-dir", &resumed, "--resume", "--threads", "1"]);
    assert_eq!(rest, {
        let mut whole = whole.clone();
        for path in ["best_checkpoint", "last_checkpoint"] {
            whole[path] = rest[path].clone();
        }
        whole
    });
    assert_eq!(whole["digest"].as_str().unwrap().len(), 32);
    assert_eq!(last_line(&straight)["valid_loss"], last_line(&resumed)["valid_loss"]);

    // Another network is another run.
    let text = fs::read_to_string(&file).unwrap().replace("linear = 16", "linear = 17");
    fs::write(&file, text).unwrap();
    let (code, _, error) = ferrotape(&["train", &file, "--run-dir", &resumed, "--resume"]);
    assert_eq!(code, 1);
    assert!(error.contains("architecture: the saved run has"), "{error}");
}

/// What a command prints that gets SIGTERM after the first evaluation of the run in `dir`.
#[cfg(all(unix, feature = "signals"))]
fn terminated(arguments: &[&str], dir: &str) -> String {
    let mut child = start(program().args(arguments).stdout(Stdio::piped()));
    let log = Path::new(dir).join("log.jsonl");
    let begun = || fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(kill.unwrap().success(), "it was too fast");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(all(unix, feature = "signals"))]
#[test]
fn a_signal_ends_a_run_that_goes_on_as_if_there_had_been_none() {
    let dir = dir("signal");
    write_idx(&dir, "", 90);
    let file = write_run(&dir, "path = \".\"\nclasses = 3");
    let text = fs::read_to_string(&file).unwrap().replace("epochs = 6", "epochs = 120");
    fs::write(&file, text + "\n[monitor]\nrule = \"budget(epochs=1000)\"\n").unwrap();
    let [straight, resumed, other] = ["straight", "resumed", "other"].map(|name| path(&dir, name));
    let out = terminated(&["train", &file, "--run-dir", &resumed], &resumed);
    assert!(out.contains("interrupted by signal 15") && out.contains("--resume"), "{out}");
    let out = terminated(&["train", &file, "--run-dir", &other, "--json"], &other);
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"));
    assert_eq!(found["stop"], "interrupted by signal 15");
    assert!(Path::new(found["last_checkpoint"].as_str().unwrap()).is_file(), "{out}");
    assert_eq!(found["test_loss"], Value::Null);

    let rest = json(&["train", &file, "--run-dir", &resumed, "--resume"]);
    let whole = json(&["train", &file, "--run-dir", &straight]);
    assert_eq!(rest["digest"], whole["digest"]);
    assert_eq!(rest["test_loss"], whole["test_loss"]);
}

/// Trains on data, evaluates on the validation part, and predicts; the share that is right.
fn end_to_end(dir: &Path, data: &str, source: &str, input: &str) -> Vec<String> {
    let file = write_run(dir, data);
    let (run, source, input) = (path(dir, "run"), path(dir, source), path(dir, input));
    let found = json(&["train", &file]);
    assert!(found["test_accuracy"].as_f64().unwrap() > 0.9, "{data}: {found}");
    let valid = json(&["eval", &run, &source, "--split", "valid"]);
    assert_eq!(valid["loss"], found["best_value"], "{data}");
    assert!(json(&["eval", &run, &source])["accuracy"].as_f64().unwrap() > 0.9, "{data}");
    let table = ok(&["eval", &run, &source]);
    assert!(table.contains("\nclass "), "{table}");
    let lines = ok(&["predict", &run, &input, "--json"]);
    let class =
        |line| serde_json::from_str::<Value>(line).unwrap()["class"].as_str().unwrap().to_owned();
    lines.lines().map(class).collect()
}

#[test]
fn idx_end_to_end() {
    let dir = dir("idx");
    write_idx(&dir, "train-", 120);
    write_idx(&dir, "t10k-", 30);
    let names = "path = \".\"\nclass_names = [\"top\", \"middle\", \"bottom\"]";
    let classes = end_to_end(&dir, names, ".", "t10k-images-idx3-ubyte");
    assert_eq!(classes[..4], ["top", "middle", "bottom", "top"]);
    // Of data with test files of their own, all means these; a pair of files can be named, too.
    let run = path(&dir, "run");
    let test = json(&["eval", &run, &path(&dir, ".")]);
    assert_eq!(test["examples"], 30);
    let [images, labels] =
        ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"].map(|f| path(&dir, f));
    assert_eq!(json(&["eval", &run, &images, &labels]), test);
    // The model wants images of its own size.
    fs::write(dir.join("wide"), idx(&[1, 6, 7], &[0; 42])).unwrap();
    let (code, _, error) = ferrotape(&["predict", &run, &path(&dir, "wide")]);
    assert_eq!(code, 1);
    assert!(
        error.contains("have shape [1, 6, 7], but the model was trained on [1, 6, 6]"),
        "{error}"
    );
}

#[test]
fn cifar10_end_to_end() {
    let dir = dir("cifar10");
    for (file, from) in (1..=5)
        .map(|b| (format!("data_batch_{b}.bin"), b * 20))
        .chain([("test_batch.bin".into(), 0)])
    {
        let record = |i: usize| {
            let class = (i % 10) as u8;
            let pixel =
                move |p: usize| if p % 10 == i % 10 { 220 } else { ((i * 31 + p) % 50) as u8 };
            [class].into_iter().chain((0..3072).map(pixel)).collect::<Vec<u8>>()
        };
        fs::write(dir.join(file), (from..from + 20).flat_map(record).collect::<Vec<u8>>()).unwrap();
    }
    let text = format!("[data]\npath = \".\"\n{}", MLP.replace("linear = 3 ", "linear = 10 "));
    let text = text.replace("lr = 0.1", "lr = 0.02");
    fs::write(
        dir.join("run.toml"),
        text + "[train]\nepochs = 4\nbatch_size = 10\n[augment]\nflip = false\n",
    )
    .unwrap();
    let found = json(&["train", &path(&dir, "run.toml")]);
    assert!(found["test_accuracy"].as_f64().unwrap() > 0.9, "{found}");
    let run = path(&dir, "runs/run");
    let test = json(&["eval", &run, &path(&dir, ".")]);
    assert_eq!((&test["loss"], &test["examples"]), (&found["test_loss"], &Value::from(20)));
    assert_eq!(test["classes"][3]["class"], "cat");
    // One of its files has what the directory has.
    let file = path(&dir, "test_batch.bin");
    assert_eq!(json(&["eval", &run, &file])["loss"], test["loss"]);
    let table = ok(&["predict", &run, &file]);
    let right = table.lines().nth(4).unwrap().contains(" 3  cat ");
    assert!(right && table.lines().count() == 21, "{table}");
}

#[test]
fn png_end_to_end() {
    let dir = dir("png");
    for i in 0..90 {
        let class = ["ant", "bee", "cow"][i % 3];
        write_png(&dir.join(format!("images/{class}/{i:03}.png")), &image(i));
    }
    write_png(&dir.join("one.png"), &image(1));
    assert_eq!(end_to_end(&dir, "path = \"images\"", "images", "one.png"), ["bee"]);
    // Some classes may be missing in what is evaluated, but none may be new.
    let run = path(&dir, "run");
    write_png(&dir.join("other/cow/1.png"), &image(2));
    let one = json(&["eval", &run, &path(&dir, "other")]);
    assert_eq!((&one["confusion"][2][2], &one["examples"]), (&Value::from(1), &Value::from(1)));
    write_png(&dir.join("other/dog/1.png"), &image(2));
    let (code, _, error) = ferrotape(&["eval", &run, &path(&dir, "other")]);
    assert_eq!(code, 1);
    assert!(error.contains("class `dog` is none of ant, bee, cow"), "{error}");
}

#[test]
fn csv_end_to_end() {
    let dir = dir("csv");
    let mut table = "a,species,b\n".to_owned();
    for i in 0..150 {
        let (class, noise) = (i % 3, (i * 37 % 19) as f32 / 100.0);
        let _ =
            writeln!(table, "{},{},{}", class as f32 + noise, ["x", "y", "z"][class], 5.0 - noise);
    }
    fs::write(dir.join("t.csv"), &table).unwrap();
    let without: String = table
        .lines()
        .take(4)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            format!("{},{}\n", fields[0], fields[2])
        })
        .collect();
    fs::write(dir.join("u.csv"), without).unwrap();
    let data = "path = \"t.csv\"\nlabel = \"species\"";
    assert_eq!(end_to_end(&dir, data, "t.csv", "u.csv"), ["x", "y", "z"]);
    let all = ok(&["predict", &path(&dir, "run"), &path(&dir, "t.csv")]);
    assert_eq!(all.lines().count(), 151, "labels are left out, and there is a heading");
}

#[test]
fn npz_end_to_end() {
    let dir = dir("npz");
    let floats = (0..90).flat_map(image).flat_map(|p| (f32::from(p) / 9.0).to_le_bytes());
    let labels = (0..90i64).flat_map(|i| (i % 3).to_le_bytes());
    let archive = zip(&[
        ("pictures.npy", npy("<f4", "(90, 6, 6)", floats.collect())),
        ("kinds.npy", npy("<i8", "(90,)", labels.collect())),
    ]);
    fs::write(dir.join("d.npz"), archive).unwrap();
    let data = "path = \"d.npz\"\nclasses = 3\ninputs = \"pictures\"\nlabels = \"kinds\"";
    let classes = end_to_end(&dir, data, "d.npz", "d.npz");
    assert_eq!((classes.len(), &classes[..3]), (90, &["0", "1", "2"].map(String::from)[..]));
}

const LINE: &str = "[model]\nlayers = [{ linear = 1 }]\n[optimizer]\nlr = 0.1\nmomentum = 0.5\n\
                    [train]\nloss = \"mse\"\nepochs = 40\n[run]\ndir = \"run\"\n";

#[test]
fn values_of_a_table_end_to_end() {
    let dir = dir("values");
    let mut table = String::from("a,b,y\n");
    for i in 0..80 {
        let (a, b) = (f64::from(i % 9) - 4.0, f64::from(i * 7 % 11) / 10.0);
        writeln!(table, "{a},{b},{}", 3.0 * a - 2.0 * b + 1.0).unwrap();
    }
    fs::write(dir.join("t.csv"), table).unwrap();
    let (file, run) = (path(&dir, "run.toml"), path(&dir, "run"));
    fs::write(&file, format!("[data]\npath = \"t.csv\"\nlabel = \"y\"\n{LINE}")).unwrap();
    let found = json(&["train", &file]);
    assert!(found["test_mae"].as_f64().unwrap() < 1e-3, "{found}");
    assert_eq!(found["test_accuracy"], Value::Null);
    let line = last_line(&run);
    assert_eq!(line["mse"], line["valid_loss"]);
    assert!(line["mae"].is_number() && line["train_mae"].is_number(), "{line}");
    assert!(line.get("accuracy").is_none(), "{line}");

    let table = path(&dir, "t.csv");
    let valid = json(&["eval", &run, &table, "--split", "valid"]);
    assert_eq!(valid["loss"], found["best_value"], "the same bits");
    assert!(ok(&["eval", &run, &table]).contains("\nmean absolute error  "));
    fs::write(dir.join("new.csv"), "a,b\n2,0.5\n0,0\n").unwrap();
    let lines = ok(&["predict", &run, &path(&dir, "new.csv"), "--json"]);
    let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let values: Vec<f64> = values.map(|line| line["values"][0].as_f64().unwrap()).collect();
    assert!((values[0] - 6.0).abs() < 0.01 && (values[1] - 1.0).abs() < 0.01, "{values:?}");
    let table = ok(&["predict", &run, &path(&dir, "new.csv")]);
    assert!(table.lines().next().unwrap().ends_with("index    values"), "{table}");
}

#[test]
fn values_of_an_archive_end_to_end() {
    let dir = dir("npz-values");
    let floats = |values: Vec<f32>| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let x: Vec<f32> = (0..60).map(|i| (i % 12) as f32).collect();
    let y = x.iter().flat_map(|x| [2.0 * x, 1.0 - x]).collect();
    let archive = |y: Vec<u8>, shape: &str| {
        let x = npy("<f4", "(60, 1)", floats(x.clone()));
        zip(&[("x.npy", x), ("y.npy", npy("<f4", shape, y))])
    };
    fs::write(dir.join("d.npz"), archive(floats(y), "(60, 2)")).unwrap();
    let text = format!("[data]\npath = \"d.npz\"\n{LINE}").replace("linear = 1 ", "linear = 2 ");
    fs::write(dir.join("run.toml"), &text).unwrap();
    let found = json(&["train", &path(&dir, "run.toml")]);
    assert!(found["test_mae"].as_f64().unwrap() < 0.01, "{found}");
    let run = path(&dir, "run");
    let valid = json(&["eval", &run, &path(&dir, "d.npz"), "--split", "valid"]);
    assert_eq!(valid["loss"], found["best_value"]);

    fs::write(dir.join("short.npz"), archive(vec![0; 8], "(2,)")).unwrap();
    let (_, _, error) = ferrotape(&["eval", &run, &path(&dir, "short.npz")]);
    assert!(error.contains("array `y` has shape [2]: expected [60, values]"), "{error}");
    fs::write(dir.join("one.npz"), archive(vec![0; 240], "(60,)")).unwrap();
    let (_, _, error) = ferrotape(&["eval", &run, &path(&dir, "one.npz")]);
    assert!(error.contains("1 values to predict, but the model predicts 2"), "{error}");
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_progress() {
    let dir = dir("unread");
    write_idx(&dir, "", 90);
    let file = write_run(&dir, "path = \".\"\nclasses = 3");
    let (code, error) = unread(program().args(["train", &file]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_eq!(last_line(&path(&dir, "run"))["epoch"], 6);
    let table = path(&dir, "images-idx3-ubyte");
    for arguments in [["ls", &path(&dir, "run"), "--json"], ["predict", &path(&dir, "run"), &table]]
    {
        let (code, error) = unread(program().args(arguments));
        assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_checkpoint_that_makes_no_sense_is_refused() {
    let state = |change: (&str, &str)| {
        let linear = r#"[{"layer":"linear","inputs":2,"outputs":1}]"#;
        let config = [
            ("architecture", linear),
            ("input_shape", "[2]"),
            ("normalization", "null"),
            ("classes", r#"["a"]"#),
        ];
        let with = |(key, value)| if key == change.0 { change } else { (key, value) };
        let tensor = |name, shape: &[usize]| {
            NamedTensor::new(name, shape, vec![0.0; shape.iter().product()])
        };
        TrainingState {
            config: config.map(with).map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            params: vec![tensor("0.weight", &[1, 2]), tensor("0.bias", &[1])],
            ..TrainingState::default()
        }
    };
    assert!(Saved::new(&state(("", ""))).is_ok());
    for (key, value, message) in [
        ("architecture", "", "architecture: "),
        ("architecture", r#"[{"layer":"flatten"}]"#, "unknown to the model"),
        ("architecture", r#"[{"layer":"max_pool2d","kernel":2,"stride":0}]"#, "there can be no"),
        ("input_shape", "[3]", "linear: "),
        ("input_shape", "[]", "input_shape: [] is not the shape of an example"),
        ("input_shape", "[0]", "is not the shape"),
        ("input_shape", "[18446744073709551615]", "is not the shape"),
        ("input_shape", "[4294967296, 4294967296, 2]", "is not the shape"),
        ("input_shape", "[1, 1, 1, 1, 1, 1, 2]", "is not the shape"),
        ("classes", r#"["a", "b"]"#, "2 classes for an output"),
        ("normalization", "[]", "normalization: "),
    ] {
        let error = Saved::new(&state((key, value))).err().unwrap().to_string();
        assert!(error.contains(message), "{key} {value}: {error}");
    }
    // One that does not fit shows when an example is read.
    let saved = Saved::new(&state(("normalization", r#"{"mean":[],"std":[0]}"#))).unwrap();
    let table = dir("nonsense").join("t.csv");
    fs::write(&table, "a,b\n1,2\n").unwrap();
    let error = saved.read_inputs(&table, &Names::default()).err().unwrap().to_string();
    assert!(error.starts_with("normalization: "), "{error}");
    let plain = Saved::new(&state(("", ""))).unwrap();
    let data = plain.read_inputs(&table, &Names::default()).unwrap();
    assert_eq!(plain.predict(&data), [[1.0]]);
    let split = plain.read(
        &table,
        None,
        Part::Valid,
        &Names { label: Some("b".into()), ..Names::default() },
    );
    assert!(split.is_err());
}

#[test]
fn a_mistake_ends_the_program_with_its_line_on_stderr() {
    let dir = dir("mistake");
    let file = write_run(&dir, "path = \"nowhere\"");
    let (code, out, error) = ferrotape(&["train", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("run.toml:2:8: there is no file or directory"), "{error}");
    assert!(error.ends_with("\n  |\n2 | path = \"nowhere\"\n  |        ^^^^^^^^^\n"), "{error}");
    for (arguments, message) in [
        (&["train"][..], "train: missing FILE.toml"),
        (&["train", &file, "--epochs", "0"], "--epochs 0: expected at least 1"),
        (&["train", &file, "--threads", "0"], "--threads 0: expected 1 to 1024"),
        (&["eval", &file], "eval: missing DATA"),
        (
            &["eval", &file, &file, "--split", "half"],
            "--split half: expected all, train, valid or test",
        ),
        (&["predict", &file], "predict: missing INPUT"),
    ] {
        let (code, _, error) = ferrotape(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
}
