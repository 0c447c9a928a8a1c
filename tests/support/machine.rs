//! The machine that the tests run on: its ports, its programs, and processes by their pid.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// A loopback port that was free a moment ago, below the range that outgoing connections use, and
/// never given out twice by this process until all have had their turn.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    // Test processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(101);
    loop {
        let nth = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + start.wrapping_add(nth) % COUNT;
        let port = u16::try_from(port).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A loopback address with a [`free_port`].
pub fn free_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The address from which this machine would speak to others; nothing is sent.
pub fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a UDP socket");
    socket.connect("192.0.2.1:9").expect("a network besides loopback: these tests need one");
    socket.local_addr().expect("an address").ip()
}

/// The path of an installed program. Panics, with what to do, when it is not installed.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run `tests/setup test`"))
}

/// The folder that `tests/setup test` fills.
pub fn test_cache() -> PathBuf {
    std::env::var_os("OUTRIGGER_TEST_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME or OUTRIGGER_TEST_CACHE is set");
        PathBuf::from(home).join(".cache/outrigger-tests")
    })
}

/// The path of a file or folder in the [`test_cache`]. Panics, with what to do, when it is missing.
pub fn installed(path: &str) -> PathBuf {
    let file = test_cache().join(path);
    assert!(file.exists(), "{} is missing: run `tests/setup test`", file.display());
    file
}

/// Sends a signal, such as `TERM`, to a process. Panics when there is none with this id.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "process {pid} is gone already");
}

/// Whether all threads of a process stand still after a `STOP`.
pub fn has_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state comes after the name, which stands in parentheses and may hold anything.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with('T'))
    })
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    let kibibytes = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    kibibytes.expect("a number") * 1024
}
