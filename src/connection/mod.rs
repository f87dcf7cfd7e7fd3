//! A client's connection: what lies between its socket and actix.
//!
//! actix-http reads ahead: it decodes the next request while one is being answered, and then frames that answer, and
//! decides whether the connection goes on, by what it decoded last (`HEAD`, `Connection`, the version). And an `Upgrade`
//! that is not meant changes how it reads and closes the whole connection. So each connection hands requests on one at a
//! time, without such offers: the next one only when the answer to the last one is out (RFC 9112, section 9.3.2). And it
//! closes itself, so that what was answered arrives.

mod framing;
mod limits;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{ConnectionType, HttpService, Protocol, Request, Response, Version};
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::io::poll_read_buf;

use framing::Framing;
pub use limits::{Limit, widen_backlog};

/// How long an idle connection is kept: longer than the 60 s after which proxies and clients commonly stop using
/// one, so that a request is not sent into a connection that is just being closed.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// What a client still sends when its connection is closed is read on for this long, unseen. Closing at once resets the
/// connection: answers that the client has not read yet are lost (RFC 9112, section 9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that sends nothing for this long after the end, and doesn't close, is taken for one that sends no more.
const SILENCE_TIMEOUT: Duration = Duration::from_millis(500);
/// A client that takes nothing of its answer for this long is cut off: until then it holds the answer in memory.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most of an answer that actix gets at once, in bytes. It copies what it gets.
const MAX_PIECE_LEN: usize = 64 << 10;
/// Bytes for which there is room when a client is read.
const READ_LEN: usize = 8 << 10;
/// Bytes of later requests that are read while one is being answered.
const MAX_PIPELINED_LEN: usize = 64 << 10;

/// Serves an actix-web app on accepted connections; ends idle ones when `draining` says so, and cuts off clients that
/// take nothing of their answer for `write_timeout`.
pub fn serve<I, S, B>(
    app: I,
    address: SocketAddr,
    draining: GracefulShutdownSignal,
    write_timeout: Duration,
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
    let in_turn = apply_fn_factory(app, |request: Request, app: &S::Service| {
        let turn = request.conn_data::<Turn>().cloned().unwrap_or_default();
        let knows_chunks = request.version() >= Version::HTTP_11;
        let answer = app.call(request);
        async move {
            let mut response = match answer.await {
                Ok(response) => response.into().map_into_boxed_body(),
                Err(error) => Response::from(error.into().error_response()),
            };
            if turn.stage() == Stage::Arriving {
                // The rest of it is not waited for.
                turn.set(Stage::Asked);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            if !knows_chunks && response.body().size() == BodySize::Stream {
                // actix would send chunks (RFC 9112, section 6.1); what has no length ends with the connection.
                response.head_mut().no_chunking(true);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            Ok::<_, S::Error>(response.map_body(|_, body| Answer { body, taken: Bytes::new(), turn }))
        }
    });
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let draining = draining.clone();
            async move { draining.notified().await }
        })
        .keep_alive(KEEP_ALIVE_TIMEOUT)
        // When actix ends a connection, it need not read on: `Connection::close` does.
        .client_disconnect_timeout(Duration::ZERO)
        .local_addr(address)
        .on_connect_ext(|connection: &Shared<TcpStream>, data| {
            data.insert(connection.0.borrow().turn.clone());
        })
        .finish(in_turn.map_err(|error| Response::from(error.into().error_response())));
    apply_fn_factory(http, move |socket: TcpStream, http| {
        let peer = socket.peer_addr().ok();
        limit_unsent(&socket);
        let connection = Rc::new(RefCell::new(Connection::new(socket, write_timeout)));
        let served = http.call((Shared(Rc::clone(&connection)), Protocol::Http1, peer));
        async move {
            let ended = served.await;
            // It is there: actix' half has gone with `served`.
            if let Some(connection) = Rc::into_inner(connection).map(RefCell::into_inner) {
                if connection.is_cut {
                    log::info!("a client that took nothing of its answer for {write_timeout:?} was cut off");
                    // A reset: what the kernel still has of the answer goes as well.
                    let _ = connection.socket.set_zero_linger();
                } else {
                    connection.close().await;
                }
            }
            ended
        }
    })
}

/// Linux says that a socket can be written again only when a third of its buffer is free, and that buffer grows to
/// megabytes: a client that reads slowly would seem to read nothing for minutes.
#[cfg(target_os = "linux")]
fn limit_unsent(socket: &TcpStream) {
    /// Bytes that the kernel has, and has not sent.
    const MAX_UNSENT: u32 = 128 << 10;
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT) {
        log::debug!("TCP_NOTSENT_LOWAT can't be set: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(_: &TcpStream) {}

/// The body of an answer. actix drops it when all of it is on its way to the socket.
struct Answer {
    body: BoxBody,
    /// Taken from `body`, and not yet by actix.
    taken: Bytes,
    turn: Turn,
}

impl MessageBody for Answer {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.taken.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.taken = bytes,
                end => return Poll::Ready(end),
            }
        }
        let count = self.taken.len().min(MAX_PIECE_LEN);
        Poll::Ready(Some(Ok(self.taken.split_to(count))))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.turn.set(Stage::Written);
    }
}

/// How far the answer to the present request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is no request, or its answer is out.
    #[default]
    Done,
    /// The request goes on, as it comes.
    Arriving,
    /// All of the request went on, or what is missing is not waited for.
    Asked,
    /// The answer is complete, but not all of it was taken by the socket yet.
    Written,
}

/// Whose turn it is: what a connection and the service behind it know of each other.
#[derive(Clone, Default)]
struct Turn(Rc<Cell<Stage>>);

impl Turn {
    fn stage(&self) -> Stage {
        self.0.get()
    }

    fn set(&self, stage: Stage) {
        self.0.set(stage);
    }
}

/// What actix reads requests from and writes answers to; who has given it to actix gets it back in the end.
struct Shared<T>(Rc<RefCell<Connection<T>>>);

/// A socket, and how far its requests and answers are.
struct Connection<T> {
    socket: T,
    framing: Framing,
    turn: Turn,
    /// Came, and was not looked at.
    read: BytesMut,
    /// Goes on to actix.
    ready: BytesMut,
    /// The client sends no more.
    ended: bool,
    /// Reads on when the answer is out: what waits, or no more of what is answered already.
    reader: Option<Waker>,
    write_timeout: Duration,
    /// Runs while the socket takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// It took nothing for too long.
    is_cut: bool,
}

impl<T> Connection<T> {
    fn new(socket: T, write_timeout: Duration) -> Self {
        Self {
            socket,
            framing: Framing::new(),
            turn: Turn::default(),
            read: BytesMut::new(),
            ready: BytesMut::new(),
            ended: false,
            reader: None,
            write_timeout,
            stalled: None,
            is_cut: false,
        }
    }

    /// Whether a request waits until the one before it is answered.
    fn must_wait(&self) -> bool {
        self.framing.between_requests() && self.turn.stage() != Stage::Done
    }

    /// Moves the next part of what was read to what goes on, if it may.
    fn advance(&mut self) -> bool {
        if self.must_wait() || self.is_refused() {
            return false;
        }
        let begins = self.framing.between_requests();
        let Some(part) = self.framing.next(&mut self.read) else { return false };
        self.ready = part;
        if begins {
            self.turn.set(Stage::Arriving);
        }
        if self.turn.stage() == Stage::Arriving && self.framing.between_requests() {
            self.turn.set(Stage::Asked);
        }
        true
    }

    /// Whether the client still has to send a part of a request that was answered without it.
    fn is_refused(&self) -> bool {
        !self.framing.between_requests() && self.turn.stage() != Stage::Arriving
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
                    // Gives up its share of the memory, so that it can be used again.
                    self.ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if self.is_refused() || self.framing.is_over() {
                // Told as an end. Otherwise actix would read a refused body in chunks for ever, and drop an answer that is
                // on its way when a chunk is none.
                return Poll::Ready(Ok(()));
            }
            let waiting = !self.read.is_empty() && self.must_wait();
            if waiting || !self.framing.between_requests() {
                self.reader = Some(context.waker().clone());
            }
            if self.ended {
                // What is left of an unfinished request is nobody's.
                return if waiting { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            if waiting && self.read.len() >= MAX_PIPELINED_LEN {
                return Poll::Pending;
            }
            // Also while a request is being answered: that is how a client that is gone is noticed.
            self.read.reserve(READ_LEN);
            match poll_read_buf(pin!(&mut self.socket), context, &mut self.read) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Connection<T> {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = pin!(&mut self.socket).poll_write(context, bytes) {
            self.stalled = None;
            return Poll::Ready(written);
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(timer.as_mut().poll(context));
        self.is_cut = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Tells the client that nothing more comes, and reads on for a while if it sends. One that closes is done with at once.
    async fn close(mut self) {
        // Whoever is gone already needs nothing of this.
        let _ = self.socket.shutdown().await;
        let sends = !self.read.is_empty()
            || !self.framing.between_requests()
            || matches!(timeout(SILENCE_TIMEOUT, self.socket.read(&mut [0])).await, Ok(Ok(1..)));
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

    /// actix flushes when the socket has taken everything that was there to be written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.0.borrow_mut();
        if connection.turn.stage() == Stage::Written {
            connection.turn.set(Stage::Done);
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
