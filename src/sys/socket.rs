//! Listening sockets and eventfds.

use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Connections that wait to be accepted, per shard.
const BACKLOG: i32 = 1024;

/// Opens `count` listening sockets on the same address, so that the kernel spreads new connections over them
/// (SO_REUSEPORT). Port 0 lets the kernel choose; all of them get the port it chose.
///
/// SO_REUSEPORT would also let a second server of the same user share the port unnoticed, so the address is first bound
/// without it: that fails while anybody else listens there.
///
/// # Errors
/// What bind(2) says: EADDRINUSE for a taken port, EACCES for a privileged one, EADDRNOTAVAIL for an address that is not
/// this machine's.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let probe = bound(address, false)?;
    let address = probe.local_addr()?.as_socket().expect("an IP socket has an IP address");
    drop(probe);
    let listeners = (0..count).map(|_| {
        let socket = bound(address, true)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    Ok((address, listeners.collect::<io::Result<_>>()?))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit both, which saves calls per connection. Keep-alive finds peers that are gone.
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Ends both directions of a connection, so that receives and sends under way complete.
pub fn shut_down(socket: BorrowedFd, how: Shutdown) {
    // An error means that the peer is gone already, which is what is wanted.
    let _ = socket2::SockRef::from(&socket).shutdown(how);
}

/// The addresses of a connection's two ends: the peer's, and ours. What the kernel does not say is `?:0`.
pub fn addresses(socket: BorrowedFd) -> (String, String) {
    let shown = |address: io::Result<socket2::SockAddr>| {
        address.ok().and_then(|address| address.as_socket()).map_or("?:0".into(), |address| address.to_string())
    };
    let socket = socket2::SockRef::from(&socket);
    (shown(socket.peer_addr()), shown(socket.local_addr()))
}

/// A counter that wakes whoever reads it: how threads without an io_uring wake a shard.
pub struct EventFd(File);

impl EventFd {
    /// # Errors
    /// What eventfd(2) says: EMFILE or ENFILE when no more files may be opened.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers; its result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Wakes the reader.
    pub fn signal(&self) {
        // The write fails only when the counter is full, that is, when the reader has been woken already.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// The descriptor, to be read through io_uring.
    pub fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_even_for_the_same_user() {
        let (address, first) = listen("127.0.0.1:0".parse().expect("an address"), 2).expect("a free port");
        assert_eq!(first.len(), 2);
        assert_eq!(listen(address, 1).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
