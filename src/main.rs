//! The `outrigger` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The first provider wins; pingora's TLS would install another one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    outrigger::cli::main()
}
