//! The layer between a client's socket and actix.
//!
//! actix-http reads ahead: it decodes the next request while one is being answered, and then frames that answer, and
//! decides whether to keep the connection, by the request that it decoded last (`HEAD`, `Connection`, the version). An
//! `Upgrade`, which we don't support, makes it read everything as a body and close the connection. So this layer
//! forwards one request at a time, without offers to upgrade: the next one only after the last answer was written
//! (RFC 9112, section 9.3.2). It also closes the socket itself, so that the client receives the whole answer.

mod framing;
mod limits;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{ConnectionType, HttpService, Protocol, Request, Response, Version};
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config};
use actix_web::HttpRequest;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::AppConfig;
use actix_web::http::header;
use actix_web::rt::net::TcpStream;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;

use crate::config::Timeouts;
use framing::Framing;
pub use limits::{Limit, widen_backlog};

/// How long input is read and discarded when a connection is closed. Closing a socket with unread input resets the
/// connection, and answers that the client has not read yet are lost (RFC 9112, section 9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that sends nothing for this long after our end was closed is assumed to send nothing more.
const QUIET_TIMEOUT: Duration = Duration::from_millis(500);
/// A client may take another second for its body for each of this many bytes.
const MIN_BODY_RATE: u64 = 500;
/// The longest piece of an answer that actix gets at once, in bytes: it copies what it gets.
const MAX_PIECE_LEN: usize = 64 << 10;
/// Room for each read from a client, in bytes.
const READ_LEN: usize = 8 << 10;
/// Most bytes of later requests that are read while one is being answered.
const MAX_PIPELINED_LEN: usize = 64 << 10;
/// What has this media type has no end.
pub const EVENT_STREAM: &str = "text/event-stream";
/// A client of an endless answer that can't be reached, or whose own buffers are full, is given up after so many times the time that one
/// may read nothing while we have something for it.
const MAX_SILENCE: u32 = 2;

/// Serves an actix-web app on accepted connections. Closes idle ones when `draining` is signalled, and those of clients
/// that take longer than `timeouts`.
pub fn serve<I, S, B>(
    app: I,
    address: SocketAddr,
    draining: GracefulShutdownSignal,
    timeouts: Timeouts,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let app = map_config(app.into_factory(), |()| AppConfig::default());
    let silence = MAX_SILENCE * timeouts.read;
    let in_turn = apply_fn_factory(app, move |request: Request, app: &S::Service| {
        let turn = request.conn_data::<Turn>().cloned().unwrap_or_default();
        let connection = request.conn_data::<Weak<RefCell<Connection<TcpStream>>>>().cloned();
        let supports_chunks = request.version() >= Version::HTTP_11;
        let answer = app.call(request);
        async move {
            let mut response = match answer.await {
                Ok(response) => response.into().map_into_boxed_body(),
                Err(error) => Response::from(error.into().error_response()),
            };
            if matches!(turn.stage(), Stage::Receiving | Stage::TooSlow) {
                // Answered before all of it arrived: the rest is not awaited.
                turn.set(Stage::Received);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            if !supports_chunks && response.body().size() == BodySize::Stream {
                // HTTP/1.0 has no chunks (RFC 9112, section 6.1): a body without a length ends with the connection.
                response.head_mut().no_chunking(true);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let is_endless = content_type.is_some_and(|value| value == EVENT_STREAM);
            if is_endless && let Some(connection) = connection.and_then(|connection| connection.upgrade()) {
                response.head_mut().set_connection_type(ConnectionType::Close);
                limit_silence(&connection.borrow().socket, silence);
            }
            Ok::<_, S::Error>(response.map_body(|_, body| ResponseBody { body, is_endless, taken: Bytes::new(), turn }))
        }
    });
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let draining = draining.clone();
            async move { draining.notified().await }
        })
        // Of the first request only.
        .client_request_timeout(timeouts.head)
        // Ours can't be put off by empty lines, but is only looked at when something comes.
        .keep_alive(timeouts.idle)
        // actix need not read on when it ends a connection: `Connection::close` does.
        .client_disconnect_timeout(Duration::ZERO)
        .local_addr(address)
        .on_connect_ext(|connection: &Shared<TcpStream>, data| {
            data.insert(connection.0.borrow().turn.clone());
            data.insert(Rc::downgrade(&connection.0));
        })
        .finish(in_turn.map_err(|error| Response::from(error.into().error_response())));
    apply_fn_factory(http, move |socket: TcpStream, http| {
        let peer = socket.peer_addr().ok();
        limit_unsent(&socket);
        let connection = Rc::new(RefCell::new(Connection::new(socket, timeouts)));
        let served = http.call((Shared(Rc::clone(&connection)), Protocol::Http1, peer));
        async move {
            let ended = served.await;
            // Always `Some`: actix's reference was dropped with `served`.
            if let Some(connection) = Rc::into_inner(connection).map(RefCell::into_inner) {
                if connection.timed_out {
                    log::info!("a client that read nothing of its answer for {:?} was disconnected", timeouts.read);
                    // A reset: the kernel drops its part of the answer, too.
                    let _ = connection.socket.set_zero_linger();
                } else {
                    connection.close().await;
                }
            }
            ended
        }
    })
}

/// Linux reports a socket as writable only when a third of its buffer is free, and the buffer grows to megabytes: a
/// client that reads slowly would seem to read nothing for minutes.
#[cfg(target_os = "linux")]
fn limit_unsent(socket: &TcpStream) {
    /// Most bytes that the kernel holds unsent.
    const MAX_UNSENT: u32 = 128 << 10;
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT) {
        log::debug!("TCP_NOTSENT_LOWAT can't be set: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(_: &TcpStream) {}

/// Without this, Linux tries for a quarter of an hour to reach a client that has vanished, such as a phone without a network: of an
/// endless answer, nobody would miss the end.
#[cfg(target_os = "linux")]
fn limit_silence(socket: &TcpStream, limit: Duration) {
    // In which what was sent is not acknowledged, or nothing more may be sent (RFC 9293, section 3.8.3).
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(limit)) {
        log::debug!("TCP_USER_TIMEOUT can't be set: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_silence(_: &TcpStream, _: Duration) {}

/// Whether the body of this request came too slowly: then it ends before its end.
pub fn is_too_slow(request: &HttpRequest) -> bool {
    request.conn_data::<Turn>().is_some_and(|turn| turn.stage() == Stage::TooSlow)
}

/// The body of an answer. actix drops it when it has taken all of it for writing.
struct ResponseBody {
    body: BoxBody,
    /// It ends when the client closes its end. Of other answers, a client may still want all.
    is_endless: bool,
    /// Taken from `body`, but not yet by actix.
    taken: Bytes,
    turn: Turn,
}

impl MessageBody for ResponseBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.is_endless && self.turn.has_left() {
            return Poll::Ready(None);
        }
        if self.taken.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.taken = bytes,
                end => return Poll::Ready(end),
            }
        }
        if self.is_endless {
            // actix would take more than the client does. Only here: what the body has begun, and may hold, it has ended.
            ready!(self.turn.poll_accepting(context));
        }
        let count = self.taken.len().min(MAX_PIECE_LEN);
        Poll::Ready(Some(Ok(self.taken.split_to(count))))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.turn.set(Stage::Written);
    }
}

/// How far the current request and its answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is no request, or its answer was written.
    #[default]
    Done,
    /// The request is being forwarded as it arrives.
    Receiving,
    /// The rest of the request did not come in time. It is not answered yet.
    TooSlow,
    /// All of the request was forwarded, or the rest is not awaited.
    Received,
    /// The answer is complete, but the socket has not accepted all of it yet.
    Written,
}

/// What a connection and the service behind it share: whose turn it is.
#[derive(Clone, Default)]
struct Turn(Rc<Shown>);

#[derive(Default)]
struct Shown {
    stage: Cell<Stage>,
    has_left: Cell<bool>,
    /// The socket accepts nothing.
    is_blocked: Cell<bool>,
    /// Woken when it does again.
    blocked: Cell<Option<Waker>>,
}

impl Turn {
    fn stage(&self) -> Stage {
        self.0.stage.get()
    }

    fn set(&self, stage: Stage) {
        self.0.stage.set(stage);
    }

    /// Whether the client has closed its end.
    fn has_left(&self) -> bool {
        self.0.has_left.get()
    }

    fn leave(&self) {
        self.0.has_left.set(true);
    }

    fn set_blocked(&self, is_blocked: bool) {
        self.0.is_blocked.set(is_blocked);
        if !is_blocked && let Some(waiting) = self.0.blocked.take() {
            waiting.wake();
        }
    }

    /// Ready when the socket accepts something, as far as is known.
    fn poll_accepting(&self, context: &Context<'_>) -> Poll<()> {
        if !self.0.is_blocked.get() {
            return Poll::Ready(());
        }
        self.0.blocked.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// What actix reads requests from and writes answers to. Shared, so that the connection can be closed when actix is
/// done with it.
struct Shared<T>(Rc<RefCell<Connection<T>>>);

/// A socket with its input, and the stage of the current request.
///
/// Input moves from the socket to `read`, and from there, at most one request at a time, to `ready`, which actix reads.
/// Invariants: `ready` never holds bytes of two requests, and nothing of a request is forwarded unless the stage was
/// [`Stage::Done`] when it began.
struct Connection<T> {
    socket: T,
    framing: Framing,
    turn: Turn,
    /// Received, but not parsed yet.
    read: BytesMut,
    /// To be read by actix.
    ready: BytesMut,
    /// The client has closed its end.
    is_eof: bool,
    /// Woken when the answer is written: then a waiting request can be read, or the end of a refused one.
    reader: Option<Waker>,
    timeouts: Timeouts,
    /// There was a request. actix itself limits the time of the first head, from the connection on, and answers 408.
    has_begun: bool,
    /// When the last answer was written.
    done_at: Instant,
    /// Since when the rest of a head or a body is awaited.
    waits_since: Option<Instant>,
    /// Bytes of the body that were forwarded.
    body_len: u64,
    /// Runs while the rest of a head or a body is awaited.
    read_timer: Option<Pin<Box<Sleep>>>,
    /// Runs while the socket accepts nothing.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// The socket accepted nothing for too long.
    timed_out: bool,
}

impl<T> Connection<T> {
    fn new(socket: T, timeouts: Timeouts) -> Self {
        Self {
            socket,
            framing: Framing::new(),
            turn: Turn::default(),
            read: BytesMut::new(),
            ready: BytesMut::new(),
            is_eof: false,
            reader: None,
            timeouts,
            has_begun: false,
            done_at: Instant::now(),
            waits_since: None,
            body_len: 0,
            read_timer: None,
            write_timer: None,
            timed_out: false,
        }
    }

    /// Whether a request waits until the one before it is answered.
    fn must_wait(&self) -> bool {
        self.framing.between_requests() && self.turn.stage() != Stage::Done
    }

    /// Moves the next part of `read` to `ready`, if it may be forwarded; returns whether it did.
    fn advance(&mut self) -> bool {
        if self.must_wait() || self.is_refused() {
            return false;
        }
        let begins = self.framing.between_requests();
        let Some(part) = self.framing.next(&mut self.read) else { return false };
        let is_whole = self.framing.between_requests();
        if begins || is_whole {
            (self.waits_since, self.body_len, self.read_timer) = (None, 0, None);
        } else {
            self.body_len += part.len() as u64;
        }
        self.ready = part;
        if begins {
            self.has_begun = true;
            self.turn.set(Stage::Receiving);
        }
        if self.turn.stage() == Stage::Receiving && is_whole {
            self.turn.set(Stage::Received);
        }
        true
    }

    /// Whether the rest of a request is missing that was answered without it.
    fn is_refused(&self) -> bool {
        !self.framing.between_requests() && self.turn.stage() != Stage::Receiving
    }

    /// Until when the client has to send more. Neither an empty line nor a byte of a head puts it off.
    fn deadline(&mut self) -> Option<Instant> {
        let Timeouts { head, body, idle, .. } = self.timeouts;
        if !self.framing.between_requests() {
            let since = *self.waits_since.get_or_insert_with(Instant::now);
            return Some(since + body + Duration::from_secs(self.body_len / MIN_BODY_RATE));
        }
        if !self.has_begun || self.turn.stage() != Stage::Done {
            return None;
        }
        if self.read.is_empty() {
            self.waits_since = None;
            return Some(self.done_at + idle);
        }
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        Some((since + head).min(self.done_at + idle + head))
    }

    /// Ready when the client takes too long. What it was to send then ends: a body so that it can be answered, a
    /// connection without an answer.
    fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(context));
        if self.framing.between_requests() {
            log::debug!("a client that took too long for its next request was disconnected");
            self.is_eof = true;
        } else {
            self.turn.set(Stage::TooSlow);
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> Connection<T> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ready.is_empty() || self.advance() {
                let count = self.ready.len().min(buffer.remaining());
                buffer.put_slice(&self.ready[..count]);
                self.ready.advance(count);
                if self.ready.is_empty() {
                    // Releases its share of the buffer, so that `read` can reuse it.
                    self.ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if self.is_refused() || self.framing.is_over() {
                // Reported as the end of input. Otherwise actix would read a refused body of chunks for ever, and drop
                // an answer that is being written when a chunk is malformed.
                return Poll::Ready(Ok(()));
            }
            let waiting = !self.read.is_empty() && self.must_wait();
            if waiting || !self.framing.between_requests() {
                self.reader = Some(context.waker().clone());
            }
            if self.is_eof {
                // What is left in `read` is an unfinished request.
                return if waiting { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            if waiting && self.read.len() >= MAX_PIPELINED_LEN {
                return Poll::Pending;
            }
            // Also while a request is being answered, to notice a client that has disconnected.
            self.read.reserve(READ_LEN);
            match poll_read_buf(pin!(&mut self.socket), context, &mut self.read) {
                Poll::Ready(Ok(0)) => {
                    self.is_eof = true;
                    // actix asks the body next, in the same poll.
                    self.turn.leave();
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if waiting => return Poll::Pending,
                Poll::Pending => ready!(self.poll_too_slow(context)),
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Connection<T> {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = pin!(&mut self.socket).poll_write(context, bytes) {
            self.write_timer = None;
            self.turn.set_blocked(false);
            return Poll::Ready(written);
        }
        self.turn.set_blocked(true);
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.timeouts.read)));
        ready!(timer.as_mut().poll(context));
        self.timed_out = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Closes our end, and discards input for a while if the client still sends. Returns at once if it closes, too.
    async fn close(mut self) {
        // Fails if the client has disconnected already.
        let _ = self.socket.shutdown().await;
        let sends = !self.read.is_empty()
            || !self.framing.between_requests()
            || matches!(timeout(QUIET_TIMEOUT, self.socket.read(&mut [0])).await, Ok(Ok(1..)));
        if sends {
            let _ = timeout(LINGER_TIMEOUT, copy(&mut self.socket, &mut sink())).await;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(context, bytes)
    }

    /// actix flushes when the socket has accepted everything there was to write.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.0.borrow_mut();
        if connection.turn.stage() == Stage::Written {
            connection.turn.set(Stage::Done);
            connection.done_at = Instant::now();
            if let Some(reader) = connection.reader.take() {
                reader.wake();
            }
        }
        pin!(&mut connection.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0.borrow_mut().socket).poll_shutdown(context)
    }
}
