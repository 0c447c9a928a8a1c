//! Binding listeners: TCP addresses and Unix sockets. Accepting is the part of `workers`.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address, written `ADDRESS:PORT`.
    Tcp(SocketAddr),
    /// The path of a Unix socket, written `unix:PATH`.
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Reads `ADDRESS:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The text is neither; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, ListenAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(ListenAddressError::NoPath),
                path => Ok(Self::Unix(path.into())),
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| ListenAddressError::NoAddress(text.to_owned()))
    }

    /// Whether it can be reached from this machine only: loopback, or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => match addr.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => ip.is_loopback(),
            },
            Self::Unix(_) => true,
        }
    }
}

/// Why a text is not the address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddressError {
    /// `unix:` without a path.
    #[error("unix: wants a path, for example unix:/run/outrigger/inbound.sock")]
    NoPath,
    /// Neither a socket address nor `unix:PATH`.
    #[error("\"{0}\" is no address: write 127.0.0.1:15480, [::1]:15480 or unix:/path")]
    NoAddress(String),
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct ListenError {
    /// The address, as it was asked for.
    pub address: String,
    /// What the system said.
    pub reason: std::io::Error,
}

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub enum Bound {
    /// A TCP listener, nonblocking.
    Tcp(TcpListener),
    /// A Unix socket and the path of its file, which is removed when this value is dropped.
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// The address, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Lets no new connection in, without disturbing those that wait to be accepted.
    ///
    /// On a TCP listener a socket filter drops packets that begin a connection; the client repeats
    /// them and then finds the port closed. Of a Unix socket the file is removed.
    pub(crate) fn refuse_new(&self) {
        match self {
            Self::Tcp(listener) => {
                let listener = socket2::SockRef::from(listener);
                if let Err(reason) = listener.attach_filter(&drop_syn()) {
                    tracing::debug!(%reason, "cannot filter new connections");
                }
            }
            Self::Unix(_, path) => {
                // An error means that the file does not exist any more, which is what is wanted.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// A classic BPF program over the TCP header: drops packets with SYN and passes all others.
fn drop_syn() -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // An error means that the file does not exist any more, which is what is wanted.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds a listener; connections queue up in it until [`run`](super::run) accepts them.
///
/// # Errors
/// The address is in use or cannot be bound; the error has the system's reason.
pub fn bind(address: &ListenAddress) -> Result<Bound, ListenError> {
    let bound = match address {
        ListenAddress::Tcp(addr) => bind_tcp(*addr).map(Bound::Tcp),
        ListenAddress::Unix(path) => {
            bind_unix(path).map(|listener| Bound::Unix(listener, path.clone()))
        }
    };
    bound.map_err(|reason| ListenError { address: address.to_string(), reason })
}

fn bind_tcp(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket file left by a process that is gone is replaced; one in use is not.
fn bind_unix(path: &PathBuf) -> std::io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(std::io::Error::other("the file exists and is no socket"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
