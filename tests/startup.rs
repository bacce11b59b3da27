//! Conditions that prevent a start: each is reported in one line, with exit status 2.

mod common;

use common::{Node, PINION};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
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
