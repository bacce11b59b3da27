//! Conditions that prevent a start: each is reported in one line, with exit status 2.

mod common;

use common::{Client, Node, PINION, wait_until};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A start that has not failed within this time has succeeded.
const START_MAX: Duration = Duration::from_secs(20);

/// Expects a failing start; returns the line with its reason.
fn refusal(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let deadline = Instant::now() + START_MAX;
    while child.try_wait().expect("it is ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it is ours");
            panic!("it started: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let Output { status, stderr, .. } = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{text}");
    let lines: Vec<&str> = text.lines().filter(|l| !l.contains(" WARN ")).collect();
    assert_eq!(lines.len(), 1, "one line: {text}");
    assert!(lines[0].starts_with("pinion: "), "{text}");
    lines[0].to_owned()
}

fn refused(arguments: &[&str]) -> String {
    refusal(Command::new(PINION).args(arguments).env("PINION_RESP_PORT", "auto"))
}

fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

#[test]
fn settings_that_cannot_be_used() {
    says(&refused(&["--port", "70000"]), &["--port", "70000", "65535"]);
    says(&refused(&["--memory", "12XB"]), &["--memory", "12XB", "MiB"]);
    says(&refused(&["--eviction", "mru"]), &["--eviction", "mru", "s3fifo, sieve, lru"]);
    says(&refused(&["--prot", "1"]), &["--prot", "--port"]);
    says(&refused(&["--shards"]), &["--shards"]);
    says(&refused(&["--listen", "nowhere"]), &["--listen", "nowhere"]);
    says(&refused(&["--port", "7000", "--resp-port", "7000"]), &["--resp-port 7000", "--port"]);
    says(&refused(&["--admin-port", "11280"]), &["--admin-port 11280", "not in this version"]);
    says(&refused(&["--cores", "9999999"]), &["--cores", "9999999"]);
    says(&refused(&["--cores", "8000"]), &["--cores", "core 8000", "allowed:"]);
    says(&refused(&["--config", "/no/such/file"]), &["/no/such/file", "No such file"]);
    says(&refused(&["dance"]), &["dance"]);
    says(&refusal(Command::new(PINION).env("PINION_PORT", "x")), &["PINION_PORT=x", "65535"]);
    says(&refusal(Command::new(PINION).env("PINION_COLOUR", "red")), &["PINION_COLOUR=red", "no such setting"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for (flag, part) in [("--help", "Precedence"), ("-h", "--memory"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = Command::new(PINION).arg(flag).output().expect("the binary runs");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(part));
    }
}

#[test]
fn a_taken_port_even_by_another_pinion() {
    let node = Node::start(&["-t", "2", "-m", "64"]);
    let port = node.address.port().to_string();
    says(&refused(&["-p", &port]), &["--port", &port, "taken"]);
    node.stop();
}

#[test]
fn an_address_of_another_machine() {
    says(&refused(&["-p", "auto", "-l", "192.0.2.1"]), &["192.0.2.1", "no such address"]);
}

#[test]
fn too_few_files() {
    let mut command = Command::new(PINION);
    command.args(["-p", "auto", "-c", "5000"]);
    // SAFETY: between fork and exec only a system call is made, on a value of this frame.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    says(&refusal(&mut command), &["--max-connections 5000", "1000", "ulimit -n"]);
}

/// Makes the command's io_uring_setup fail with EPERM, as a container's default seccomp profile does.
fn without_io_uring(command: &mut Command) {
    const LOAD_SYSCALL: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        step(LOAD_SYSCALL, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec only system calls are made; the program points to the filter, which the closure
    // owns.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0;
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

#[test]
fn io_uring_denied_by_a_container() {
    let mut command = Command::new(PINION);
    command.args(["-p", "auto"]);
    without_io_uring(&mut command);
    says(&refusal(&mut command), &["io_uring is forbidden", "seccomp"]);
}

/// Runs as an unprivileged user, since root is exempt from the limits.
fn unprivileged(arguments: &[&str], memlock_bytes: u64) -> Command {
    // The build directory may be inaccessible to other users.
    let copy = std::env::temp_dir().join(format!("pinion-unprivileged-{}-{memlock_bytes}", std::process::id()));
    std::fs::copy(PINION, &copy).expect("a copy of the binary");
    let mut command = Command::new(&copy);
    command.args(arguments).env("PINION_RESP_PORT", "auto");
    // SAFETY: between fork and exec only system calls are made, on values of this frame.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: memlock_bytes, rlim_max: memlock_bytes };
            let done = libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) == 0
                && (libc::geteuid() != 0 || (libc::setgid(65534) == 0 && libc::setuid(65534) == 0));
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    command
}

#[test]
fn an_ordinary_user_needs_only_the_default_limits() {
    let node = Node::start_command(unprivileged(&["-p", "auto", "-t", "4", "-m", "64"], 8 << 20));
    let mut client = node.client();
    client.set("k", b"v");
    assert_eq!(client.get("k"), Some(b"v".to_vec()));
    node.stop();
}

#[test]
fn too_little_lockable_memory() {
    let line = refusal(&mut unprivileged(&["-p", "auto", "-t", "2"], 64 << 10));
    says(&line, &["lockable memory", "64 KiB", "ulimit -l", "LimitMEMLOCK"]);
}

#[test]
fn an_environment_and_a_file_are_enough() {
    let file = std::env::temp_dir().join(format!("pinion-{}.toml", std::process::id()));
    std::fs::write(&file, "memory = \"96MiB\"\nshards = 2\n").expect("a file");
    let mut command = Command::new(PINION);
    command.env("PINION_CONFIG", &file).env("PINION_PORT", "auto").env("PINION_SHARDS", "1");
    let node = Node::start_command(command);
    let mut client = node.client();
    assert_eq!((client.stat("limit_maxbytes"), client.stat("threads")), (96 << 20, 1));
    node.stop();
    std::fs::remove_file(file).expect("our file");
}

#[test]
fn shards_that_share_a_core_are_warned_of() {
    let node = Node::start(&["-t", "3", "--cores", &pinion::sys::allowed_cores()[0].to_string(), "-m", "64"]);
    let warned = node.log().iter().any(|l| l.contains("WARN") && l.contains("3 shards share 1 core"));
    assert!(warned, "{:?}", node.log());
    node.stop();
}

/// A password that was not UTF-8 was ignored, and so was an empty one: the node started without one.
#[test]
fn passwords_that_are_none() {
    let mut command = Command::new(PINION);
    command.env("PINION_REQUIREPASS", OsStr::from_bytes(b"s\xffcret"));
    let line = refusal(&mut command);
    says(&line, &["PINION_REQUIREPASS", "not UTF-8"]);
    assert!(!line.contains("cret"), "{line}");
    says(&refused(&["--requirepass", ""]), &["--requirepass is empty", "1 to 512"]);
    says(&refusal(Command::new(PINION).env("PINION_REQUIREPASS", "")), &["--requirepass is empty"]);
}

#[test]
fn ports_that_anybody_can_use_are_warned_of_in_one_line() {
    let node = Node::start(&["-t", "1", "-m", "64", "-l", "0.0.0.0"]);
    let warned = node.log().iter().filter(|l| l.contains("WARN") && l.contains("no password")).count();
    assert_eq!(warned, 1, "{:?}", node.log());
    node.stop();
}

/// The message named the memory of `-m`, which was not what could not be had.
#[test]
fn a_limit_of_the_address_space_is_named() {
    let mut command = Command::new(PINION);
    command.args(["-p", "auto", "-t", "1", "-m", "1g"]).env("PINION_RESP_PORT", "auto");
    // SAFETY: between fork and exec only a system call is made, on a value of this frame.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 512 << 20, rlim_max: 512 << 20 };
            if libc::setrlimit(libc::RLIMIT_AS, &limit) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    says(&refusal(&mut command), &["address space", "512 MiB", "ulimit -v", "LimitAS"]);
}

#[test]
fn names_and_ports_of_addresses_as_in_memcached() {
    let node = Node::start(&["-t", "1", "-m", "64", "-l", "localhost"]);
    assert!(node.address.ip().is_loopback());
    node.client().sync();
    node.stop();
    let port = free_port();
    let node = Node::start(&["-t", "1", "-m", "64", "-l", &format!("127.0.0.1:{port}")]);
    assert_eq!(node.address.port(), port);
    let mut client = node.client();
    let inter = client.stats("settings").into_iter().find(|(name, _)| name == "inter").expect("the address");
    assert_eq!(inter.1, format!("127.0.0.1:{port}"));
    // RESP's port is its own.
    assert_ne!(node.resp_address.port(), port);
    node.stop();
}

/// memcached starts with `-m 3`; so does Pinion, with the least memory that it can use.
#[test]
fn little_memory_is_raised_to_the_least() {
    let node = Node::start(&["-t", "2", "-m", "3"]);
    assert_eq!(node.client().stat("limit_maxbytes"), 8 << 20);
    assert!(node.log().iter().any(|l| l.contains("WARN") && l.contains("--memory 3MiB is raised to 8MiB")));
    node.stop();
}

/// A port that nobody uses at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

/// After SIGKILL the kernel takes a moment to free the sockets: starting again at once failed.
#[test]
fn a_port_that_becomes_free_within_a_second_is_waited_for() {
    let port = free_port().to_string();
    for _ in 0..3 {
        let node = Node::start_command({
            let mut command = Command::new(PINION);
            command.args(["-p", &port, "-t", "2", "-m", "64"]);
            command
        });
        node.client().sync();
        // Dropping it kills it.
        drop(node);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        drop(listener);
    });
    let mut command = Command::new(PINION);
    command.args(["-p", &port, "-t", "1", "-m", "64"]);
    let node = Node::start_command(command);
    later.join().expect("no panic");
    node.client().sync();
    node.stop();
}

/// SIGHUP, SIGUSR1 and SIGUSR2 killed the node.
#[test]
fn signals_that_mean_nothing_here_are_ignored() {
    let node = Node::start(&["-t", "1", "-m", "64"]);
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the call takes no pointers; the process is our child and not waited for yet.
        unsafe { libc::kill(node.pid() as i32, signal) };
        let line = format!("signal={signal}");
        wait_until("the log", || node.log().iter().any(|l| l.contains("ignored") && l.contains(&line)));
    }
    node.client().sync();
    node.stop();
}

/// Starts a node whose standard error is `stderr`; the log cannot tell its port.
fn start_with(stderr: Stdio) -> (Child, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(PINION);
    command.args(["-p", &address.port().to_string(), "-t", "2", "-m", "64"]).env("PINION_RESP_PORT", "0");
    let child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("the binary starts");
    wait_until("the port", || TcpStream::connect(address).is_ok());
    (child, address)
}

/// Makes a node log, checks that it goes on, and stops it; returns how many log lines it has dropped.
fn logs_and_goes_on((mut child, address): (Child, SocketAddr)) -> u64 {
    for _ in 0..100 {
        let mut binary = Client::connect(address);
        binary.send([0x80]);
        assert!(binary.is_closed());
    }
    let mut client = Client::connect(address);
    client.set("k", b"v");
    assert_eq!(client.get("k"), Some(b"v".to_vec()));
    assert_eq!(client.stat("wrong_protocol_connections"), 100);
    let dropped = client.stat("log_lines_dropped");
    // SAFETY: the call takes no pointers; the process is our child and not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let begun = Instant::now();
    let status = child.wait().expect("it is ours");
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    dropped
}

/// With standard error on a full disk, or a pipe whose reader was gone, the first log line was a panic.
#[test]
fn a_log_that_cannot_be_written_is_dropped_and_counted() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    assert!(logs_and_goes_on(start_with(full.into())) > 0);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert!(logs_and_goes_on(start_with(writer.into())) > 0);
}

/// A shard that logged waited for a reader of the pipe.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // As much as a pipe holds.
    writer.write_all(&[b'x'; 64 << 10]).expect("it is empty");
    logs_and_goes_on(start_with(writer.into()));
    drop(reader);
}
