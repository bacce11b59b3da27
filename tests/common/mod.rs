//! Starts a real node and real clients: the binary listens on a port that the kernel chooses, and is stopped with
//! SIGTERM.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time after which a test gives up waiting: far longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub const PINION: &str = env!("CARGO_BIN_EXE_pinion");

/// A running node; killed if the test forgets it.
pub struct Node {
    child: Child,
    /// The address of its memcached port.
    pub address: SocketAddr,
    /// The address of its RESP port, or the memcached address if it has no RESP port.
    pub resp_address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts a node on a free port with additional arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PINION);
        command.args(["--port", "auto"]).args(arguments);
        Self::start_command(command)
    }

    /// Starts a node by a complete command.
    pub fn start_command(mut command: Command) -> Self {
        // Ports are chosen by the kernel by default, so that nodes of concurrent tests do not collide.
        command.env("PINION_RESP_PORT", "auto");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = std::sync::mpsc::channel();
        let (lines, written) = (BufReader::new(child.stderr.take().expect("piped")), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for line in lines.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("address=") {
                    addresses.extend(rest.split_whitespace().next().and_then(|a| a.parse::<SocketAddr>().ok()));
                }
                if line.contains(" ready ") {
                    let _ = found.send(addresses.first().copied().zip(addresses.last().copied()));
                }
                written.lock().expect("no panic").push(line);
            }
        });
        match address.recv_timeout(PATIENCE) {
            Ok(Some((address, resp_address))) => Self { child, address, resp_address, log },
            _ => {
                let _ = child.kill();
                panic!("the node did not start: {:?}", log.lock().expect("no panic"));
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    /// Connects a new client.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        // SAFETY: the call takes no pointers; the process is our child and not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }

    /// Waits until the process ends.
    pub fn wait(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the node does not end: {:?}", self.log());
            std::thread::yield_now();
        }
    }

    /// Stops the node and checks that it exited successfully.
    pub fn stop(self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a resident set");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that sends and receives lines and bytes without interpreting them.
pub struct Client {
    /// The connection.
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects; reads and writes time out after [`PATIENCE`].
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        Self { stream, reader }
    }

    /// Sends bytes unchanged.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// True if something has come that is not read yet.
    pub fn has_received(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("a setting");
        let has_more = !self.reader.buffer().is_empty() || stream.peek(&mut [0]).is_ok_and(|count| count > 0);
        stream.set_nonblocking(false).expect("a setting");
        has_more
    }

    /// Receives the next line, without its line end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("a line");
        assert!(line.ends_with(b"\r\n"), "cut off: {:?}", String::from_utf8_lossy(&line));
        line.truncate(line.len() - 2);
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Receives `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// True if the server closes the connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends a command line and returns the first line of the reply.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        self.line()
    }

    /// Stores a value.
    pub fn set(&mut self, key: &str, value: &[u8]) {
        self.send([format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat());
        assert_eq!(self.line(), "STORED", "{key}");
    }

    /// Fetches a value.
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let first = self.ask(&format!("get {key}"));
        if first == "END" {
            return None;
        }
        let length = first.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a length");
        let value = self.bytes(length);
        assert_eq!((self.line(), self.line()), (String::new(), "END".into()));
        Some(value)
    }

    /// Makes one round trip: afterwards, the shard has received everything sent before on any of its connections.
    pub fn sync(&mut self) {
        assert!(self.ask("version").starts_with("VERSION "));
    }

    /// All lines of `stats`, as pairs of name and value.
    pub fn stats(&mut self, topic: &str) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut line = self.ask(&format!("stats {topic}"));
        while line != "END" {
            let mut words = line.splitn(3, ' ').skip(1).map(String::from);
            lines.push((words.next().expect("a name"), words.next().expect("a value")));
            line = self.line();
        }
        lines
    }

    /// The value of one number of `stats`.
    pub fn stat(&mut self, name: &str) -> u64 {
        let stats = self.stats("");
        let value = stats.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name} in {stats:?}"));
        value.1.parse().expect("a number")
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::yield_now();
    }
}

/// A small random number generator with a fixed sequence per seed.
pub struct Random(pub u64);

impl Random {
    /// A random number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
