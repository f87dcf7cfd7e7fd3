//! A client's connection: what lies between its socket and actix.
//!
//! actix-http reads ahead: it decodes the next request while one is being answered, and then frames that answer by
//! what it decoded last (`HEAD`, `Connection`, the version). And an `Upgrade` that is not meant changes how it reads and
//! closes the whole connection. So each connection hands requests on one at a time, without such offers: the next one
//! only when the answer to the last one has begun (RFC 9112, section 9.3.2).

mod framing;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use framing::Framing;

/// How long an idle connection is kept: longer than the 60 s after which proxies and clients commonly stop using
/// one, so that a request is not sent into a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A refused request's body is read on for this long, unseen. Closing at once resets the connection: a client that
/// reads only after it has sent everything would never see why it was refused.
const READ_REFUSED: Duration = Duration::from_secs(5);
/// Bytes for which there is room when a client is read.
const READ: usize = 8 << 10;

/// Serves an actix-web app on accepted connections; ends idle ones when `draining` says so.
pub fn serve<I, S, B>(
    app: I,
    address: SocketAddr,
    draining: GracefulShutdownSignal,
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
        let turn = request.conn_data::<Turn>().cloned();
        let answer = app.call(request);
        async move {
            let answer = answer.await;
            // actix writes the head of the answer before it reads again.
            if let Some(turn) = turn {
                turn.pass();
            }
            answer
        }
    });
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let draining = draining.clone();
            async move { draining.notified().await }
        })
        .keep_alive(KEEP_ALIVE)
        .client_disconnect_timeout(READ_REFUSED)
        .local_addr(address)
        .on_connect_ext(|connection: &Connection<TcpStream>, data| {
            data.insert(connection.turn.clone());
        })
        .finish(in_turn.map_err(|error| error.into().error_response()));
    let connect = |socket: TcpStream| async move {
        let peer = socket.peer_addr().ok();
        Ok((Connection::new(socket), Protocol::Http1, peer))
    };
    fn_service(connect).and_then(http)
}

/// Whether a request of the connection is being answered.
#[derive(Clone, Default)]
struct Turn(Rc<RefCell<Answering>>);

#[derive(Default)]
struct Answering {
    busy: bool,
    /// Reads on when the answer has begun.
    reader: Option<Waker>,
}

impl Turn {
    fn take(&self) {
        self.0.borrow_mut().busy = true;
    }

    fn is_taken(&self) -> bool {
        self.0.borrow().busy
    }

    fn wake_when_passed(&self, context: &Context<'_>) {
        self.0.borrow_mut().reader = Some(context.waker().clone());
    }

    fn pass(&self) {
        let mut answering = self.0.borrow_mut();
        answering.busy = false;
        if let Some(reader) = answering.reader.take() {
            reader.wake();
        }
    }
}

/// What actix reads requests from and writes answers to.
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
}

impl<T> Connection<T> {
    fn new(socket: T) -> Self {
        let (read, ready) = (BytesMut::new(), BytesMut::new());
        Self { socket, framing: Framing::new(), turn: Turn::default(), read, ready, ended: false }
    }

    /// Whether a request waits until the one before it is answered.
    fn must_wait(&self) -> bool {
        self.framing.between_requests() && self.turn.is_taken()
    }

    /// Moves the next part of what was read to what goes on, if it may.
    fn advance(&mut self) -> bool {
        if self.must_wait() {
            return false;
        }
        let begins = self.framing.between_requests();
        let Some(part) = self.framing.next(&mut self.read) else { return false };
        self.ready = part;
        if begins {
            self.turn.take();
        }
        true
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() || this.advance() {
                let count = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..count]);
                this.ready.advance(count);
                if this.ready.is_empty() {
                    // Gives up its share of the memory, so that it can be used again.
                    this.ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if !this.read.is_empty() && this.must_wait() {
                this.turn.wake_when_passed(context);
                return Poll::Pending;
            }
            if this.ended {
                if this.read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.framing.end();
                continue;
            }
            // Also while a request is being answered: that is how a client that is gone is noticed.
            this.read.reserve(READ);
            match poll_read_buf(pin!(&mut this.socket), context, &mut this.read) {
                Poll::Ready(Ok(0)) => this.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
