//! The tables of the semantics crate's manual (`src/semantics/rfc/*.md`): what the RFCs ask, and the
//! tests that show it. A test that is named there exists, and each row names one or says why not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a row may say in place of a test.
const WITHOUT_TEST: &[&str] = &["no test: ", "not implemented: "];

/// A row of a table: where it is, and its last cell.
struct Row {
    place: String,
    shown_by: String,
}

#[test]
fn the_tests_named_in_the_manual_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rows = Vec::new();
    for entry in fs::read_dir(root.join("src/semantics/rfc")).expect("the manual is there") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            rows.extend(rows_of(&path));
        }
    }
    assert!(rows.len() > 100, "the tables have {} rows only", rows.len());
    let mistakes: Vec<String> = rows.iter().filter_map(|row| mistake(root, row)).collect();
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

#[test]
fn a_test_that_does_not_exist_is_noticed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wrong = |cell: &str| {
        let row = Row { place: "here".to_owned(), shown_by: cell.to_owned() };
        mistake(root, &row).is_some()
    };
    assert!(!wrong("`workspace/manual::a_test_that_does_not_exist_is_noticed`"));
    assert!(wrong("`workspace/manual::a_test_that_nobody_wrote`"));
    assert!(wrong("`workspace/nowhere::a_test_that_does_not_exist_is_noticed`"));
    // A function is no test.
    assert!(wrong("`workspace/manual::mistake`"));
    assert!(wrong("") && wrong("yes") && wrong("`mistake`"));
    assert!(!wrong("no test: nothing is there to be seen"));
    assert!(wrong("no test: "));
}

/// The rows of the tables of a file, without their heads.
fn rows_of(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).expect("readable");
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        if !line.starts_with('|') || is_rule(line) || is_head {
            continue;
        }
        let place = format!("{}:{}", path.display(), at + 1);
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{place}: a row has three cells");
        rows.push(Row { place, shown_by: cells[2].to_owned() });
    }
    rows
}

/// What is wrong with the last cell of a row.
fn mistake(root: &Path, row: &Row) -> Option<String> {
    let Row { place, shown_by } = row;
    for word in WITHOUT_TEST {
        if let Some(reason) = shown_by.strip_prefix(word.trim_end()) {
            return reason.trim().is_empty().then(|| format!("{place}: a reason is missing"));
        }
    }
    // What stands between backticks.
    let named: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        return Some(format!("{place}: it names no test"));
    }
    named.iter().find_map(|name| {
        let found = name.split_once("::").is_some_and(|(file, test)| has_test(root, file, test));
        (!found).then(|| format!("{place}: there is no test {name}"))
    })
}

/// Whether a file of the sources or of the tests, named without its ending, has a test of this name.
fn has_test(root: &Path, file: &str, test: &str) -> bool {
    ["src", "tests"].iter().any(|folder| {
        let path = root.join(folder).join(format!("{file}.rs"));
        fs::read_to_string(path).is_ok_and(|text| tests_of(&text).contains(test))
    })
}

/// The names of the functions that an attribute marks as tests.
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if marked && !line.starts_with("//") {
            marked = false;
            let function = line.strip_prefix("async ").unwrap_or(line);
            if let Some((name, _)) =
                function.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            {
                names.insert(name);
            }
        }
    }
    names
}
