use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use actix_server::{Server, ServerHandle};
use actix_web::body::BodyStream;
use actix_web::rt::task::spawn_blocking;
use actix_web::{App, HttpResponse, web};
use futures_util::future::join;
use futures_util::stream::repeat_with;
use tokio::io::duplex;
use tokio::sync::Notify;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(10),
    body: Duration::from_secs(20),
    idle: Duration::from_secs(75),
    read: Duration::from_secs(30),
};

#[tokio::test(start_paused = true)]
async fn only_a_client_that_reads_nothing_for_the_whole_timeout_is_disconnected() {
    let (socket, mut client) = duplex(1);
    let connection = Rc::new(RefCell::new(Connection::new(socket, TIMEOUTS)));
    let mut shared = Shared(Rc::clone(&connection));
    let pause = TIMEOUTS.read - Duration::from_secs(1);
    let reads = async {
        for _ in 0..10 {
            sleep(pause).await;
            client.read_u8().await.unwrap();
        }
    };
    let begun = tokio::time::Instant::now();
    let (written, ()) = join(shared.write_all(&[0; 12]), reads).await;
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!((TIMEOUTS.read..TIMEOUTS.read + Duration::from_secs(1)).contains(&(begun.elapsed() - 10 * pause)));
    assert!(connection.borrow().timed_out);
}

/// A body without end, which notifies when it is dropped.
struct Endless(Arc<Notify>);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Serves `/endless`, and `/slow`, which takes three times the timeout.
fn start(timeouts: Timeouts) -> (ServerHandle, SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dropped = Arc::new(Notify::new());
    let server = Server::build().disable_signals().workers(1).shutdown_timeout(0);
    let (draining, notify) = (server.graceful_shutdown_signal(), Arc::clone(&dropped));
    let app = move || {
        let notify = Arc::clone(&notify);
        let endless = move || {
            let body = Endless(Arc::clone(&notify));
            let chunks = repeat_with(move || {
                let _kept = &body;
                Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 4 * MAX_PIECE_LEN]))
            });
            async move { HttpResponse::Ok().body(BodyStream::new(chunks)) }
        };
        let slow = move || async move {
            sleep(3 * timeouts.read).await;
            "slow"
        };
        let app = App::new().route("/endless", web::get().to(endless)).route("/slow", web::get().to(slow));
        serve(app, address, draining.clone(), timeouts)
    };
    let server = server.listen("test", listener, app).unwrap().run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (handle, address, dropped)
}

fn get(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream
}

#[actix_web::test]
async fn the_connection_of_a_client_that_reads_nothing_is_reset() {
    let limit = Duration::from_millis(500);
    let (server, address, dropped) = start(Timeouts { read: limit, ..TIMEOUTS });
    let begun = Instant::now();
    let mut stream = get(address, "/endless");
    timeout(Duration::from_secs(60), dropped.notified()).await.expect("the answer is dropped");
    assert!(begun.elapsed() >= limit);
    let rest = spawn_blocking(move || stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    server.stop(false).await;
}

#[actix_web::test]
async fn a_client_that_reads_slowly_is_not_disconnected() {
    let limit = Duration::from_secs(2);
    let (server, address, dropped) = start(Timeouts { read: limit, ..TIMEOUTS });
    let mut stream = get(address, "/endless");
    let read = spawn_blocking(move || {
        let begun = Instant::now();
        // In one timeout, less than Linux waits for before it reports a large buffer as writable.
        while begun.elapsed() < 3 * limit {
            stream.read_exact(&mut [0; 20 << 10]).expect("the answer goes on");
            std::thread::sleep(Duration::from_millis(50));
        }
        stream
    });
    let stream = read.await.unwrap();
    assert!(timeout(Duration::ZERO, dropped.notified()).await.is_err(), "the answer goes on");
    drop(stream);
    timeout(Duration::from_secs(60), dropped.notified())
        .await
        .expect("the answer is dropped when the client disconnects");
    server.stop(false).await;
}

#[actix_web::test]
async fn neither_a_slow_handler_nor_an_idle_connection_is_disconnected() {
    let limit = Duration::from_millis(100);
    let (server, address, _) = start(Timeouts { read: limit, ..TIMEOUTS });
    let talk = spawn_blocking(move || {
        let mut stream = get(address, "/slow");
        for _ in 0..2 {
            let mut answer = [0; 512];
            let count = stream.read(&mut answer).unwrap();
            assert!(answer[..count].ends_with(b"\r\n\r\nslow"), "{:?}", String::from_utf8_lossy(&answer));
            std::thread::sleep(3 * limit);
            write!(stream, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
    });
    talk.await.unwrap();
    server.stop(false).await;
}
