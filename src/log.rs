//! The log: lines on standard error, written by a thread of their own.
//!
//! Who logs puts a line into a queue and goes on: a shard never waits for standard error, which may be a pipe that
//! nobody reads, or a file on a full disk. Lines that find the queue full, and lines that cannot be written, are
//! dropped and counted ([`dropped_lines`]).

#![forbid(unsafe_code)]

use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines that wait to be written at most.
const QUEUE_LINES: usize = 1024;

/// Lines dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The number of lines dropped since the start.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// All lines before it are written: tell the sender.
    Flush(Sender<()>),
}

/// The queue's sending end. Each `write` is one line; it takes no time and does not fail.
#[derive(Clone)]
pub struct Log(Sender<Message>);

impl Log {
    /// A log whose lines are written to `out` by a thread of its own.
    ///
    /// # Errors
    /// The error of starting a thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = bounded(QUEUE_LINES);
        std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&lines, out))?;
        Ok(Self(queue))
    }

    /// Waits until the lines logged so far are written, for as long as `patience`.
    pub fn flush(&self, patience: Duration) {
        let (written, wait) = bounded(1);
        let deadline = Instant::now() + patience;
        // A timeout means that nobody reads the lines, of which the queue may be full.
        if self.0.send_timeout(Message::Flush(written), patience).is_ok() {
            let _ = wait.recv_deadline(deadline);
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Message>, mut out: impl Write) {
    for message in lines {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(written) => _ = written.try_send(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    /// Writes to a vector once the barrier opens; a line `fail` fails.
    struct Slow(Arc<Barrier>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match line {
                b"wait\n" => _ = self.0.wait(),
                b"fail\n" => return Err(io::ErrorKind::StorageFull.into()),
                _ => {}
            }
            self.1.lock().expect("no panic").extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A full disk was a panic, and a pipe that nobody read stopped the shard that logged. One test, since the number
    /// of dropped lines is the process's.
    #[test]
    fn nobody_waits_for_the_log_and_what_it_loses_is_counted() {
        let (barrier, written) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(Vec::new())));
        let mut log = Log::start(Slow(Arc::clone(&barrier), Arc::clone(&written))).expect("a thread");
        let before = dropped_lines();
        for line in ["a\n", "fail\n", "b\n", "wait\n"] {
            log.write_all(line.as_bytes()).expect("it does not fail");
        }
        // The writer is stuck: the queue fills, and the rest is dropped.
        for _ in 0..3 * QUEUE_LINES {
            log.write_all(b"c\n").expect("it does not fail");
        }
        let began = Instant::now();
        log.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(30), "nobody waits longer than that");
        barrier.wait();
        log.flush(Duration::from_secs(60));
        let dropped = dropped_lines() - before;
        let lines = written.lock().expect("no panic").iter().filter(|&&b| b == b'\n').count() as u64;
        assert!(written.lock().expect("no panic").starts_with(b"a\nb\nwait\nc\n"));
        assert_eq!(lines + dropped, 4 + 3 * QUEUE_LINES as u64);
        assert!(dropped > QUEUE_LINES as u64, "{dropped} dropped");
    }
}
