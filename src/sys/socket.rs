//! Listening sockets and eventfds.

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Length of the accept queue of each shard's listener.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Opens `count` listening sockets on one address, so that the kernel distributes new connections over them
/// (SO_REUSEPORT). With port 0 the kernel chooses a port, and all sockets get that port. The peers of their connections
/// are probed after `keepalive_seconds` without traffic ([`keep_alive`]).
///
/// SO_REUSEPORT would also let a second server of this user share the port unnoticed. So the address is first bound
/// without it, which fails while another process listens there.
///
/// # Errors
/// The error of bind(2): EADDRINUSE for a port in use, EACCES for a privileged one, EADDRNOTAVAIL for an address that
/// this machine does not have.
pub fn listen(address: SocketAddr, count: usize, keepalive_seconds: u32) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let probe = bound(address, false)?;
    let address = probe.local_addr()?.as_socket().expect("an IP socket has an IP address");
    drop(probe);
    let listeners = (0..count).map(|_| {
        let socket = bound(address, true)?;
        keep_alive(socket.as_fd(), keepalive_seconds);
        socket.listen(LISTEN_BACKLOG)?;
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
        // Accepted sockets inherit this option and those of keep-alive, which saves system calls per connection.
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Has the kernel probe a connection's peer after `seconds` without traffic, and close the connection when three
/// probes, a third of that time apart, remain unanswered. 0: never.
pub fn keep_alive(socket: BorrowedFd, seconds: u32) {
    let socket = socket2::SockRef::from(&socket);
    let time = |seconds: u32| Duration::from_secs(seconds.max(1).into());
    let probes = TcpKeepalive::new().with_time(time(seconds)).with_interval(time(seconds / 3)).with_retries(3);
    // An error means that the peer has disconnected already, which is fine.
    let _ = if seconds == 0 { socket.set_keepalive(false) } else { socket.set_tcp_keepalive(&probes) };
}

/// Shuts both directions of a connection down, so that receives and sends in flight complete.
pub fn shut_down(socket: BorrowedFd, how: Shutdown) {
    // An error means that the peer has disconnected already, which is fine.
    let _ = socket2::SockRef::from(&socket).shutdown(how);
}

/// The addresses of a connection's two ends, the peer's and ours; `?:0` if the kernel does not report one.
pub fn addresses(socket: BorrowedFd) -> (String, String) {
    let shown = |address: io::Result<socket2::SockAddr>| {
        address.ok().and_then(|address| address.as_socket()).map_or("?:0".into(), |address| address.to_string())
    };
    let socket = socket2::SockRef::from(&socket);
    (shown(socket.peer_addr()), shown(socket.local_addr()))
}

/// An eventfd: lets threads without an io_uring wake a shard.
pub struct EventFd(File);

impl EventFd {
    /// # Errors
    /// The error of eventfd(2): EMFILE or ENFILE if no more files may be opened.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers; its result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Wakes the shard that reads it.
    pub fn signal(&self) {
        // The write fails only if the counter is full, and then the reader has been woken already.
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
        let (address, first) = listen("127.0.0.1:0".parse().expect("an address"), 2, 60).expect("a free port");
        assert_eq!(first.len(), 2);
        assert_eq!(listen(address, 1, 60).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
