//! The `outrigger` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Libraries that open TLS connections take the provider of the process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    outrigger::cli::main()
}
