//! The binary under test.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The path of the binary. Cargo sets the variable `CARGO_BIN_EXE_outrigger` when it runs the integration tests of the package that has the
/// binary; a test that is run without Cargo needs it from whoever runs it.
///
/// # Panics
///
/// When the variable is not set.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("CARGO_BIN_EXE_outrigger");
    path.expect("`cargo test` sets CARGO_BIN_EXE_outrigger: run the tests by it").into()
}

/// The binary as a command, without input and with an environment that configures nothing.
pub fn outrigger() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OUTRIGGER_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}
