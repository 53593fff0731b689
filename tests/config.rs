//! Files that describe a run: a mistake is shown where it is, whatever it is, and the documentation
//! lists exactly the keys that there are.

use std::path::Path;

use ferrotape::config::RunConfig;
use proptest::prelude::*;

/// A correct file, as the start for those with a mistake.
const GOOD: &str = r#"seed = 1

[data]
path = "data/mnist"
classes = 10

[model]
layers = [
    { conv2d = 6, kernel = 5 },
    "relu",
    "flatten",
    { linear = 10 },
]

[train]
epochs = 3

[optimizer]
lr = 0.05

[schedule]
kind = "step"
every = 2
gamma = 0.5

[monitor]
rule = "any(patience(5), gl(5))"
"#;

/// What is said about `GOOD` with a mistake, wherever it is found.
fn complaint(text: &str) -> String {
    let config = RunConfig::parse("run.toml", text, Path::new(""));
    let outcome = config.and_then(|config| config.load().and_then(|data| config.model(&data)));
    outcome.err().map_or("no complaint".into(), |error| error.to_string())
}

#[test]
fn mistakes_are_shown_where_they_are() {
    assert_eq!(complaint(GOOD), "no complaint");
    for (right, wrong, place, message) in [
        ("epochs = 3", "loss = \"mse\"", "5:11", "there are no classes where the loss is \"mse\""),
        (
            "epochs = 3",
            "epoch = 3",
            "16:1",
            "unknown key `epoch` in [train]: did you mean `epochs`?",
        ),
        (
            "[optimizer]",
            "[optimiser]",
            "18:2",
            "unknown key `optimiser` in the file: did you mean `optimizer`?",
        ),
        (
            "lr = 0.05",
            "learning_rate = 1",
            "19:1",
            "unknown key `learning_rate` in [optimizer]; expected one of lr, momentum",
        ),
        (
            "lr = 0.05",
            "momentum = 0.9",
            "18:1",
            "[optimizer] has no `lr`; expected the learning rate",
        ),
        ("lr = 0.05", "lr = -0.05", "19:6", "`lr`: expected a number above 0, found -0.05"),
        ("lr = 0.05", "lr = \"fast\"", "19:6", "`lr`: expected a number above 0, found \"fast\""),
        ("lr = 0.05", "lr = 0.05\nnesterov = true", "20:12", "`nesterov` needs a momentum"),
        ("lr = 0.05", "lr = ", "19:6", ""),
        (
            "epochs = 3",
            "epochs = 0",
            "16:10",
            "`epochs`: expected a whole number from 1 to 4294967295, found 0",
        ),
        ("epochs = 3", "epochs = 2.5", "16:10", "`epochs`: expected a whole number"),
        ("\"relu\"", "\"rulu\"", "10:5", "unknown layer `rulu`: did you mean `relu`?"),
        ("conv2d = 6", "conv = 6", "9:5", "unknown layer `conv`"),
        (
            "kernel = 5",
            "kernal = 5",
            "9:19",
            "unknown key `kernal` in this layer: did you mean `kernel`?",
        ),
        (", kernel = 5", "", "9:5", "this layer has no `kernel`; expected the height and width"),
        (
            "kernel = 5",
            "kernel = 50",
            "9:5",
            "this layer cannot follow: its input has shape [1, 1, 28, 28]",
        ),
        (
            "kernel = 5",
            "kernel = 5, padding = 5",
            "9:41",
            "`padding`: expected a whole number of pixels, less than the kernel",
        ),
        ("kernel = 5", "kernel = 4, padding = \"same\"", "9:41", "\"same\" needs an odd kernel"),
        (
            "    \"flatten\",\n",
            "",
            "11:5",
            "`linear` follows something of shape [1, 6, 24, 24]: put \"flatten\"",
        ),
        (
            "linear = 10",
            "linear = 12",
            "12:5",
            "the last layer gives shape [1, 12] for one example, but the data have 10 classes",
        ),
        ("linear = 10", "linear = 16000000", "12:5", "this layer cannot follow"),
        ("{ linear = 10 }", "\"linear\"", "12:5", "`linear` needs its outputs: { linear = 10 }"),
        ("data/mnist", "data/minst", "4:8", "there is no file or directory"),
        ("classes = 10", "", "4:8", "classes: IDX and npz files do not say how many"),
        ("classes = 10", "classes = 9", "4:8", "data/mnist/labels-idx1-ubyte.gz"),
        (
            "classes = 10",
            "classes = 10\nformat = \"idy\"",
            "6:10",
            "`format`: unknown value \"idy\": did you mean `idx`?",
        ),
        (
            "classes = 10",
            "classes = 10\nlabel = \"x\"",
            "6:9",
            "`label` means nothing in this format",
        ),
        ("classes = 10", "classes = 10\nvalid = 1.0", "6:9", "`valid`: expected a fraction"),
        (
            "classes = 10",
            "classes = 10\nnormalize = { mean = [0, 0], std = [1, 1] }",
            "6:13",
            "2 means and 2 deviations, but an example has 1 channels",
        ),
        ("\"step\"", "\"stp\"", "22:8", "`kind`: unknown value \"stp\": did you mean `step`?"),
        ("gamma = 0.5", "", "21:1", "[schedule] has no `gamma`"),
        ("gamma = 0.5", "gamma = 0.5\nperiod = 3", "25:1", "unknown key `period` in [schedule]"),
        ("gl(5)", "gl(x)", "27:29", "expected"),
        ("patience(5)", "patience(0)", "27:8", ""),
        (
            "patience(5)",
            "on(acuracy,max,patience(5))",
            "27:8",
            "metric `acuracy`: is not measured: did you mean `accuracy`? (there are valid_loss,",
        ),
        (
            "kind = \"step\"\nevery = 2\ngamma = 0.5",
            "kind = \"reduce_on_plateau\"\nmonitor = \"acc\"\nfactor = 0.5\npatience = 2",
            "23:11",
            "metric `acc`: is not measured: did you mean `accuracy`? (there are valid_loss,",
        ),
        ("seed = 1", "seed = 1\nseed = 2", "2:1", "duplicate key"),
        ("seed = 1", "seed = -1", "1:8", "`seed`: expected a whole number"),
        ("[data]", "[[data]]", "3:1", "`data`: expected a table"),
    ] {
        assert!(GOOD.contains(right), "{right}");
        let text = GOOD.replacen(right, wrong, 1);
        let found = complaint(&text);
        let expected = format!("run.toml:{place}: {message}");
        assert!(found.starts_with(&expected), "{wrong}\nexpected {expected}\nfound    {found}");
        // The line, with a caret under the place.
        let (row, column) = place.split_once(':').unwrap();
        let (row, column): (usize, usize) = (row.parse().unwrap(), column.parse().unwrap());
        let lines: Vec<&str> = found.lines().collect();
        let (shown, caret) = (lines[lines.len() - 2], lines[lines.len() - 1]);
        assert_eq!(shown, format!("{row} | {}", text.lines().nth(row - 1).unwrap()), "{found}");
        assert_eq!(caret.find('^'), Some(row.to_string().len() + 2 + column), "{found}");
    }
    let values = GOOD.replace("classes = 10\n", "").replace("epochs = 3", "loss = \"mse\"");
    let complaint = complaint(&values);
    assert!(complaint.contains("run.toml:4:8: format: only CSV and npz files"), "{complaint}");
}

const DOC: &str = include_str!("../docs/train.md");

/// The keys in the first column of the table under a heading of the documentation.
fn documented(heading: &str) -> Vec<String> {
    let start = DOC.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let section = &DOC[start + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let key = |row: &str| row.split('`').nth(1).unwrap().to_owned();
    rows.map(key).collect()
}

/// The keys that the reader knows, as it lists them when it meets one that it does not.
fn known(text: &str) -> Vec<String> {
    let found = complaint(text);
    let first = found.lines().next().unwrap();
    let (_, list) = first.split_once("expected one of ").unwrap_or_else(|| panic!("{found}"));
    list.split(", ").map(String::from).collect()
}

#[test]
fn the_documentation_lists_exactly_the_keys_that_there_are() {
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(documented("The file")), sorted(known("zzzzzzzzzzzz = 1")));
    for section in ["data", "model", "train", "optimizer", "monitor", "augment", "run"] {
        let heading = format!("[{section}]\n");
        let text = match GOOD.contains(&heading) {
            true => GOOD.replace(&heading, &format!("{heading}zzzzzzzzzzzz = 1\n")),
            false => format!("{GOOD}{heading}zzzzzzzzzzzz = 1\n"),
        };
        assert_eq!(
            sorted(documented(&format!("`[{section}]`"))),
            sorted(known(&text)),
            "{section}"
        );
    }
    let kinds = documented("`[schedule]`");
    let all = known(&GOOD.replace("\"step\"", "\"zzzzzzzzzzzz\""));
    assert_eq!(kinds, all.iter().map(|kind| format!("\"{kind}\"")).collect::<Vec<_>>());
    for kind in kinds {
        let row = DOC.lines().find(|line| line.starts_with(&format!("| `{kind}`"))).unwrap();
        let keys = row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2).map(String::from);
        let keys = keys.chain(["kind".to_owned(), "warm_up".to_owned()]).collect();
        let text =
            GOOD.replace("\"step\"\nevery = 2\ngamma = 0.5", &format!("{kind}\nzzzzzzzzzzzz = 1"));
        assert_eq!(sorted(keys), sorted(known(&text)), "{kind}");
    }
}

#[test]
fn the_files_in_the_documentation_are_understood() {
    let blocks: Vec<&str> =
        DOC.split("```toml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!(complaint(blocks[0]), "no complaint");
    let all = RunConfig::parse("run.toml", blocks[1], Path::new("")).map(drop);
    all.unwrap_or_else(|error| panic!("{error}"));
    // Every layer that the table shows.
    let table = &DOC[DOC.find("| layer |").unwrap()..];
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let layers: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    assert_eq!(layers.len(), 14);
    let text = format!(
        "[data]\npath = \"x\"\n[model]\nlayers = [{}]\n[optimizer]\nlr = 1",
        layers.join(", ")
    );
    RunConfig::parse("run.toml", text, Path::new(""))
        .map(drop)
        .unwrap_or_else(|error| panic!("{error}"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever is changed in a file: it is understood, or there is an error with a place.
    #[test]
    fn no_file_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8usize, ".{0,6}"), 1..4),
        everything: bool,
    ) {
        let example = DOC.split("```toml\n").nth(2).unwrap().split("```").next().unwrap();
        let mut text: Vec<char> = if everything { example } else { GOOD }.chars().collect();
        for (at, removed, inserted) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = RunConfig::parse("run.toml", text, Path::new("")) {
            let message = error.to_string();
            prop_assert!(message.starts_with("run.toml:"), "{}", message);
            prop_assert!(message.contains(" | ") && message.ends_with('^'), "{}", message);
        }
    }
}
