//! Listeners of the public port: TCP addresses and Unix sockets, opened for every shard.
//!
//! Owns the files of Unix sockets and removes them at the end. Never accepts. The invariants: each
//! shard gets one listener per address, in the order of the addresses; a file that another process
//! listens on, or that is not a socket, stays untouched.
//!
//! Each shard has its own listener of a TCP address (SO_REUSEPORT), so the kernel spreads the
//! connections evenly. The kernel has no such option for Unix sockets: there the shards share one
//! listener, and each of them waits in it. A connection wakes one waiting shard.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::failure::Failure;
use crate::base::sys::{self, ListenerOptions};

/// Advice if descriptors are used up.
const DESCRIPTORS_CURE: &str = "raise the limit on descriptors (`ulimit -n 1048576`)";

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port of an IP address. `::` serves IPv4 too.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// Permissions of the file.
        mode: u32,
    },
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(out),
            ListenAddress::Unix { path, .. } => write!(out, "unix:{}", path.display()),
        }
    }
}

/// The file of a Unix socket; it is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that the file of another process is not removed.
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            // A file that stays is replaced by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Open listeners.
#[derive(Debug)]
pub struct Listeners {
    /// Listeners of each shard, in the order of the addresses.
    pub of_shards: Vec<Vec<Socket>>,
    /// The bound addresses: the kernel has chosen a port for port 0.
    pub addresses: Vec<ListenAddress>,
    /// Files of the Unix sockets.
    pub files: Vec<SocketFile>,
}

impl Listeners {
    /// Opens the listeners of `shards` shards.
    pub fn open(
        addresses: &[ListenAddress],
        shards: usize,
        options: &ListenerOptions,
    ) -> Result<Self, Failure> {
        let (mut bound, mut files) = (Vec::new(), Vec::new());
        let mut of_shards: Vec<Vec<Socket>> = (0..shards).map(|_| Vec::new()).collect();
        for address in addresses {
            match address {
                ListenAddress::Tcp(tcp) => {
                    let mut tcp = *tcp;
                    for listeners in &mut of_shards {
                        let (listener, port) = open_tcp(tcp, options)?;
                        // The other shards use the port that the first one got.
                        tcp = port;
                        listeners.push(listener);
                    }
                    bound.push(ListenAddress::Tcp(tcp));
                }
                ListenAddress::Unix { path, mode } => {
                    let (listener, file) = open_unix(path, *mode, options.backlog)?;
                    for listeners in &mut of_shards {
                        listeners.push(listener.try_clone().map_err(|error| {
                            let cause = format!("cannot share the listener of {address}: {error}");
                            Failure::new(cause, DESCRIPTORS_CURE)
                        })?);
                    }
                    files.push(file);
                    bound.push(address.clone());
                }
            }
        }
        Ok(Listeners { of_shards, addresses: bound, files })
    }
}

/// Checks that no other process listens on an address of these. SO_REUSEPORT would hide it: two
/// servers of the same user would silently share the port.
pub fn check_free(addresses: &[ListenAddress]) -> Result<(), Failure> {
    for address in addresses {
        match address {
            ListenAddress::Tcp(tcp) => {
                let taken = sys::try_bind(*tcp)
                    .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
                if taken {
                    let port = tcp.port();
                    return Err(Failure {
                        cause: format!("cannot bind {tcp}: address in use"),
                        cure: format!(
                            "find the process with `ss -ltnp 'sport = :{port}'`, or choose another \
                             port with --http_server.port"
                        ),
                    });
                }
            }
            ListenAddress::Unix { path, .. } => free_path(path)?,
        }
    }
    Ok(())
}

fn open_tcp(
    address: SocketAddr,
    options: &ListenerOptions,
) -> Result<(Socket, SocketAddr), Failure> {
    let opened = sys::listener(address, options).and_then(|listener| {
        let bound = listener.local_addr()?.as_socket().unwrap_or(address);
        Ok((listener, bound))
    });
    opened.map_err(|error| {
        let cause = format!("cannot listen on {address}: {error}");
        Failure::new(cause, "choose another address or port in http_server")
    })
}

/// Removes the file that a process has left which listens no more. Fails if another process
/// listens there, or if the file is not a socket.
fn free_path(path: &Path) -> Result<(), Failure> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !found.file_type().is_socket() {
        return Err(Failure {
            cause: format!("cannot listen on unix:{shown}: the file is not a socket"),
            cure: "choose another path, or remove the file".to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| Failure {
                cause: format!("cannot remove the unused socket {shown}: {error}"),
                cure: "let the server's user write to the folder, or remove the file".to_owned(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Failure {
            cause: format!("cannot listen on unix:{shown}: another process listens there"),
            cure: format!("find the process with `ss -lxp src {shown}`, or choose another path"),
        }),
    }
}

fn open_unix(path: &Path, mode: u32, backlog: i32) -> Result<(Socket, SocketFile), Failure> {
    free_path(path)?;
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile { path: path.to_owned(), inode: inode(path)? };
        // Nobody can connect before the permissions are set: the socket does not listen yet.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(backlog)?;
        Ok((socket, file))
    };
    open().map_err(|error: io::Error| Failure {
        cause: format!("cannot listen on unix:{}: {error}", path.display()),
        cure: "choose a path of at most 107 bytes in a folder that the server's user may write to"
            .to_owned(),
    })
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OPTIONS: ListenerOptions = ListenerOptions {
        send_buffer: 4096,
        receive_buffer: 4096,
        user_timeout: Duration::from_secs(1),
        backlog: 16,
    };

    fn unix(path: &Path) -> Vec<ListenAddress> {
        vec![ListenAddress::Unix { path: path.to_owned(), mode: 0o620 }]
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        let opened = Listeners::open(&unix(&path), 3, &OPTIONS).unwrap();
        assert_eq!(opened.of_shards.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o620);
        UnixStream::connect(&path).unwrap();
        let other = Listeners::open(&unix(&path), 1, &OPTIONS).unwrap_err();
        assert!(other.cause.contains("another process listens there"), "{other:?}");
        assert!(check_free(&unix(&path)).is_err());
        drop(opened);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the kernel leaves the file");
        let first = Listeners::open(&unix(&path), 1, &OPTIONS).unwrap();
        // Someone replaces the file: it is no longer ours to remove.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "kept").unwrap();
        drop(first);
        let refused = Listeners::open(&unix(&path), 1, &OPTIONS).unwrap_err();
        assert!(refused.cause.contains("is not a socket"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn every_shard_listens_on_the_port_that_the_first_one_got() {
        let any = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
        let opened = Listeners::open(&[any("127.0.0.1:0"), any("[::]:0")], 2, &OPTIONS).unwrap();
        for (at, address) in opened.addresses.iter().enumerate() {
            let ListenAddress::Tcp(address) = address else { panic!("{address}") };
            assert_ne!(address.port(), 0);
            for shard in &opened.of_shards {
                let bound = shard[at].local_addr().unwrap().as_socket().unwrap();
                assert_eq!(bound, *address);
            }
        }
        // An address for IPv6 and IPv4 takes the port of both.
        let ListenAddress::Tcp(both) = &opened.addresses[1] else { panic!("TCP") };
        std::net::TcpStream::connect(("127.0.0.1", both.port())).unwrap();
        let same = [ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], both.port())))];
        let taken = check_free(&same).unwrap_err();
        assert!(taken.cause.contains("address in use"), "{taken:?}");
    }
}
