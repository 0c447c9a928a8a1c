//! `outrigger demo`: what it prints works when pasted.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Process, free_port, outrigger, tool};

#[test]
fn demo_prints_curl_lines_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let admin = format!("127.0.0.1:{}", free_port());
    let mut command = outrigger();
    command.args(["demo", "--listen", &listen, "--admin", &admin]);
    let (mut demo, stdout) = Process::start_talking("demo", &mut command, folder.path());

    let lines = BufReader::new(stdout).lines();
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    let curl_lines = curl_lines(&printed);

    // Every line printed can be pasted; curl itself is only told to mind the status.
    let _ = tool("curl");
    for line in &curl_lines {
        let output = Command::new("sh")
            .args(["-c", &line.replacen("curl ", "curl --fail ", 1)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(!output.stdout.is_empty(), "{line} shows something");
    }

    // The first of them, tried twice, shows a hit.
    let url = curl_lines[0]
        .split_whitespace()
        .map(|word| word.trim_matches(['\'', '"']))
        .find(|word| word.starts_with("http://"))
        .unwrap_or_else(|| panic!("no URL in {:?}", curl_lines[0]));
    assert!(
        url.starts_with(&format!("http://{listen}")),
        "the first line goes to the cache: {url}"
    );
    let headers = || {
        let output = Command::new(tool("curl"))
            .args(["--silent", "--show-error", "--include", url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).to_lowercase()
    };
    headers();
    let second = headers();
    assert!(second.contains("cache-status: outrigger; hit"), "{second}");

    assert!(demo.terminate(Duration::from_secs(10)).success(), "the demo ends in peace");
}

/// The curl commands that the demo prints: it has said all when nothing more comes for a while.
fn curl_lines(printed: &mpsc::Receiver<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut patience = Duration::from_secs(15);
    while let Ok(line) = printed.recv_timeout(patience) {
        let line = line.trim_start().trim_start_matches("$ ");
        if line.starts_with("curl ") {
            found.push(line.to_owned());
            patience = Duration::from_secs(3);
        }
    }
    assert!(!found.is_empty(), "the demo prints curl lines");
    found
}
