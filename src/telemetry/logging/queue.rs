//! The queue of log lines: callers hand over a line and continue; one thread writes them, in order, many at a time.
//! Nothing waits for the reader of the log: when the queue is full, lines are dropped, and their number is reported.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

/// Most bytes that wait, some 25,000 lines of requests. As many more can be on their way out.
const CAPACITY_BYTES: usize = 4 << 20;
/// How long the thread waits for more lines after the first, to write them together.
const BATCH_DELAY: Duration = Duration::from_millis(2);
/// Delay before a write that would block is tried again: another program can make the pipe of standard output
/// non-blocking.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// The queue. Cheap to clone: all clones are the same queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Signals that there is something to write.
    filled: Condvar,
    /// Signals that something was written.
    written: Condvar,
    /// Lines that were dropped.
    dropped: Counter<u64, AtomicU64>,
}

#[derive(Default)]
struct State {
    /// Whole lines, each with its line feed.
    waiting: Vec<u8>,
    /// Bytes accepted since the start.
    taken: u64,
    /// Bytes of these that were written, or given up because they can't be.
    out: u64,
    /// Lines that were dropped and are not reported yet.
    unreported: u64,
}

impl Queue {
    /// An empty queue. It counts what it drops in `dropped`.
    pub fn new(dropped: Counter<u64, AtomicU64>) -> Self {
        let (state, filled, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self(Arc::new(Shared { state, filled, written, dropped }))
    }

    /// Accepts a line, with its line feed, or drops it. Never waits for the output.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + line.len() > CAPACITY_BYTES {
            state.unreported += 1;
            self.0.dropped.inc();
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        state.taken += line.len() as u64;
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
    }

    /// Waits until everything that was accepted so far is written, but not longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let Some(mut state) = self.0.state.try_lock_until(deadline) else { return };
        let taken = state.taken;
        while state.out < taken && !self.0.written.wait_until(&mut state, deadline).timed_out() {}
    }

    /// Writes lines to `output` for ever. `report` formats the line that says how many were dropped.
    pub fn write_to(&self, mut output: impl Write, report: impl Fn(u64) -> Vec<u8>) {
        let (mut batch, mut failed) = (Vec::new(), false);
        loop {
            let mut state = self.0.state.lock();
            // An output that failed is tried again with the next line.
            if state.waiting.is_empty() && (state.unreported == 0 || failed) {
                self.0.filled.wait(&mut state);
            }
            drop(state);
            std::thread::sleep(BATCH_DELAY);
            let mut state = self.0.state.lock();
            std::mem::swap(&mut batch, &mut state.waiting);
            let unreported = std::mem::take(&mut state.unreported);
            drop(state);
            let taken = batch.len();
            if unreported > 0 {
                batch.extend_from_slice(&report(unreported));
            }
            let written = batch.len() - write(&mut output, &batch).len();
            failed = written < batch.len();
            let lost = batch[written.min(taken)..taken].iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.0.dropped.inc_by(lost);
            let mut state = self.0.state.lock();
            // Reported once the output works again; so is a report that was lost itself.
            state.unreported += lost + if failed { unreported } else { 0 };
            state.out += taken as u64;
            drop(state);
            batch.clear();
            self.0.written.notify_all();
        }
    }
}

/// Writes all of `bytes`; returns the rest that the output refused.
fn write<'a>(output: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => break,
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_DELAY),
            Err(_) => break,
        }
    }
    // A failure means that buffered bytes are lost; the next write fails in the same way, and counts.
    let _ = output.flush();
    bytes
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Longer than any flush in a test takes.
    const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

    /// Passes on what is written, and accepts a write only when the test lets it.
    struct Gate {
        opened: Receiver<()>,
        open: bool,
        writes: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A dropped sender means that it stays open.
            self.open |= self.opened.recv().is_err();
            self.writes.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(output: impl Write + Send + 'static) -> (Queue, Counter<u64, AtomicU64>) {
        let dropped = Counter::default();
        let queue = Queue::new(dropped.clone());
        let writer = queue.clone();
        std::thread::spawn(move || writer.write_to(output, |count| format!("{count} dropped\n").into_bytes()));
        (queue, dropped)
    }

    fn gate() -> (Gate, Sender<()>, Receiver<Vec<u8>>) {
        let (opener, opened) = channel();
        let (writes, written) = channel();
        (Gate { opened, open: false, writes }, opener, written)
    }

    #[test]
    fn lines_come_out_in_order_and_many_at_a_time() {
        let (output, opener, written) = gate();
        drop(opener);
        let (queue, dropped) = start(output);
        let mut expected = Vec::new();
        for n in 0..10_000 {
            let line = format!("line {n}\n").into_bytes();
            queue.push(&line);
            expected.extend(line);
        }
        queue.flush(FLUSH_TIMEOUT);
        let writes: Vec<Vec<u8>> = written.try_iter().collect();
        assert_eq!(writes.concat(), expected);
        assert!(writes.len() < 2_000, "{} writes", writes.len());
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn no_caller_waits_for_a_full_output_and_dropped_lines_are_counted_and_reported() {
        let (output, opener, written) = gate();
        let (queue, dropped) = start(output);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let begun = Instant::now();
        // The first batch is being written, the second one waits, the rest has no room.
        let lines = 3 * CAPACITY_BYTES / line.len();
        for _ in 0..lines {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let lost = dropped.get();
        assert!(lost >= (CAPACITY_BYTES / line.len()) as u64 - 1, "{lost}");
        drop(opener);
        queue.flush(FLUSH_TIMEOUT);
        let text = String::from_utf8(written.try_iter().flatten().collect()).unwrap();
        let reported: u64 = text.lines().filter_map(|line| line.strip_suffix(" dropped")?.parse::<u64>().ok()).sum();
        assert_eq!(reported, lost);
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count() as u64 + lost, lines as u64);
        queue.push(b"afterwards\n");
        queue.flush(FLUSH_TIMEOUT);
        assert_eq!(written.try_iter().flatten().collect::<Vec<u8>>(), b"afterwards\n");
    }

    #[test]
    fn an_output_that_fails_costs_its_lines_and_nothing_else() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, dropped) = start(Closed);
        for n in 1..=3 {
            queue.push(b"one\ntwo\n");
            queue.flush(FLUSH_TIMEOUT);
            assert_eq!(dropped.get(), 2 * n);
        }
    }

    #[test]
    fn what_an_output_has_lost_is_reported_when_it_works_again() {
        struct Full(Receiver<()>, Sender<u8>, bool);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.2 |= self.0.try_recv().is_ok();
                if !self.2 {
                    return Err(ErrorKind::StorageFull.into());
                }
                bytes.iter().for_each(|byte| self.1.send(*byte).unwrap());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ((make_room, room), (sender, received)) = (channel(), channel());
        let (queue, dropped) = start(Full(room, sender, false));
        for _ in 0..3 {
            queue.push(b"lost\nlost\n");
            queue.flush(FLUSH_TIMEOUT);
        }
        make_room.send(()).unwrap();
        queue.push(b"kept\n");
        queue.flush(FLUSH_TIMEOUT);
        let text = String::from_utf8(received.try_iter().collect()).unwrap();
        assert_eq!((text.as_str(), dropped.get()), ("kept\n6 dropped\n", 6));
    }

    #[test]
    fn an_output_that_would_block_or_takes_little_gets_everything_once() {
        struct Slow(Sender<u8>, u32);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    1 => Err(ErrorKind::Interrupted.into()),
                    _ => {
                        self.0.send(bytes[0]).unwrap();
                        Ok(1)
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, received) = channel();
        let (queue, dropped) = start(Slow(sender, 0));
        queue.push(b"every byte once\n");
        queue.flush(FLUSH_TIMEOUT);
        assert_eq!(received.try_iter().collect::<Vec<u8>>(), b"every byte once\n");
        assert_eq!(dropped.get(), 0);
    }
}
