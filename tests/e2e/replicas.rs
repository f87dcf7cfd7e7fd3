//! Several services on one Postgres and one Kafka, each with a sidecar of its own, and a proxy in front of them. The test here
//! proves that the proxy takes them in turn.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::stack::{Client, PATIENCE, Stack};

/// How many.
pub const COUNT: usize = 3;

/// All of it ends with the test.
pub struct Replicas {
    /// What a test does to one of them, or to its sidecar, it does to its stack. The first one has Postgres and Kafka.
    pub each: Vec<Stack>,
    proxy: RoundRobin,
}

impl Replicas {
    /// Everything runs.
    pub fn started() -> Self {
        let mut replicas = Self::new();
        replicas.each[0].start_kafka();
        replicas.each.iter_mut().for_each(Stack::start_sidecar);
        replicas.each.iter_mut().for_each(Stack::start_service);
        replicas
    }

    /// Kafka and sidecars do not run.
    pub fn without_events() -> Self {
        let mut replicas = Self::new();
        replicas.each.iter_mut().for_each(Stack::start_service);
        replicas
    }

    /// Only Postgres runs.
    fn new() -> Self {
        let mut each = vec![Stack::on_postgres()];
        // Tests log in more often than people.
        each[0].service_env.push(("LOGIN_LIMITS", "False".into()));
        while each.len() < COUNT {
            each.push(each[0].beside());
        }
        let proxy = RoundRobin::start(each.iter().map(Stack::service_port).collect());
        Self { each, proxy }
    }

    /// A client that is logged in, through the proxy.
    pub async fn client(&self, username: &str, password: &str) -> Client {
        Stack::client_at(self.proxy.port, username, password).await
    }

    /// A client of each replica, with the token that one of them has given.
    pub async fn clients(&self, username: &str, password: &str) -> Vec<Client> {
        let client = self.client(username, password).await;
        self.each.iter().map(|stack| client.at(stack.service_port())).collect()
    }

    /// Does something to a replica, or to Postgres, that takes its time, while the test's own clients go on.
    pub async fn meanwhile<T: Send + 'static>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Stack) -> T + Send + 'static,
    ) -> T {
        let mut stack = self.each.remove(index);
        let done = tokio::task::spawn_blocking(move || {
            let result = act(&mut stack);
            (stack, result)
        });
        let (stack, result) = done.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.each.insert(index, stack);
        result
    }

    /// Runs SQL, while the test's own clients go on.
    pub async fn psql(&mut self, sql: &'static str) -> String {
        self.meanwhile(0, |first| first.postgres().psql(sql)).await
    }

    /// Waits until each of them publishes the events of some partitions.
    pub async fn wait_until_shared(&mut self) {
        let begun = Instant::now();
        loop {
            let shares = self
                .psql(
                    "SELECT process, count(*) FROM leases WHERE until > clock_timestamp() GROUP BY process ORDER BY 2",
                )
                .await;
            if shares.lines().count() == COUNT {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "processes and how many partitions they have:\n{shares}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until there is no event left to publish.
    pub async fn wait_until_published(&self) {
        for stack in &self.each {
            stack.wait_until_published().await;
        }
    }
}

/// A proxy that knows of connections only: each goes to the next replica that takes it. One that is frozen does: its
/// kernel answers for it.
struct RoundRobin {
    port: u16,
    /// Dropped, it ends.
    _stop: oneshot::Sender<()>,
}

impl RoundRobin {
    /// On a thread of its own: what blocks the test does not block the proxy.
    fn start(replicas: Vec<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(&listener, &replicas) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, _stop: stop }
    }
}

async fn serve(listener: &tokio::net::TcpListener, replicas: &[u16]) {
    for turn in 0.. {
        let (client, _) = listener.accept().await.unwrap();
        let mut in_turn = replicas.to_vec();
        in_turn.rotate_left(turn % replicas.len());
        tokio::spawn(pass_on(client, in_turn));
    }
}

async fn pass_on(mut client: TcpStream, replicas: Vec<u16>) {
    client.set_nodelay(true).unwrap();
    for port in replicas {
        if let Ok(mut replica) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            replica.set_nodelay(true).unwrap();
            // Whoever breaks it off ends it for both.
            let _ = copy_bidirectional(&mut client, &mut replica).await;
            return;
        }
    }
}

#[test]
fn the_proxy_takes_the_replicas_in_turn_and_passes_over_who_is_dead() {
    // Each names itself to whoever connects.
    let named = |name: u8| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                std::io::Write::write_all(&mut connection.unwrap(), &[name]).unwrap();
            }
        });
        port
    };
    let dead = crate::stack::free_port();
    let proxy = RoundRobin::start(vec![named(0), dead, named(2), named(3)]);
    let who = || {
        let mut name = Vec::new();
        let mut connection = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        connection.read_to_end(&mut name).unwrap();
        name[0]
    };
    assert_eq!([(); 8].map(|()| who()), [0, 2, 2, 3, 0, 2, 2, 3]);
    // Without anybody, the connection just ends.
    let proxy = RoundRobin::start(vec![dead]);
    let mut nobody = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
    assert_eq!(nobody.read(&mut [0]).unwrap(), 0);
}
