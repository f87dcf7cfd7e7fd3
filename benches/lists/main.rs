//! Lists and searches of 100,000 todos of one user (30 + 100 characters each): how long a search takes, and what others
//! notice of it and of lists that are sent without pause. `make bench` runs it; docs/performance.md has its figures.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use todo_backend::app::App;
use todo_backend::auth::token::Keys;
use todo_backend::config::Config;
use todo_backend::domain::account::UserId;
use todo_backend::domain::todo::filter::{Filter, Needle};
use todo_backend::domain::todo::sort::Sort;
use todo_backend::store::Store;
use todo_backend::store::map::select::{Selection, select};

const TODOS: usize = 100_000;
const ENGLISH: &str = "buy milk report meeting call Anna fix the bug in dashboard and write notes for quarterly review clean \
    kitchen Tuesday order tickets to Berlin invoice customer send draft plan holiday read chapter about distributed systems";
const RUSSIAN: &str = "купить молоко отчёт встреча позвонить Анна исправить ошибка панель написать заметки квартал обзор убрать \
    кухня Вторник заказать билеты Берлин счёт клиент отправить набросок план отпуск прочитать глава распределённые системы";

#[actix_web::main]
async fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let database = format!("sqlite:{}", directory.path().join("todos.db").display());
    let settings =
        [("DATABASE_URL", database.as_str()), ("DAPR_HTTP_ENDPOINT", "http://127.0.0.1:1"), ("RATE_LIMIT_USER", "0")];
    let config =
        Config::from_variables(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter()).unwrap();
    let app = App::build(config.clone(), TcpListener::bind("127.0.0.1:0").unwrap()).await.unwrap();
    let (store, address, stop) = (app.store(), app.address(), app.stop_token());
    let keys = Keys::new(&config, store.epoch());
    let token = |username: &str| {
        let user = store.account_named(username).now_or_never().unwrap().unwrap().unwrap();
        (user.id, keys.issue(&user, None, config.clock.now().seconds()).unwrap())
    };
    let ((english, english_token), (russian, russian_token), (_, other_token)) =
        (token("demo"), token("user"), token("admin"));
    let running = actix_web::rt::spawn(app.run());
    let measured = actix_web::rt::task::spawn_blocking(move || {
        let resident = resident();
        fill(address, &english_token, ENGLISH);
        println!(
            "{TODOS} todos of 30 + 100 characters take {} bytes of memory each",
            (self::resident() - resident) / TODOS
        );
        fill(address, &russian_token, RUSSIAN);
        search(&store, "English", english, &["zzzz", "berlin invoice", "dashboard", "e"]);
        search(&store, "Russian", russian, &["щщщщ", "берлин счёт", "панель", "е"]);
        list_memory(address, &english_token);
        Client::new(address, &other_token).call("POST", "/todos", &json!({"title": "x"}));
        let id = json_of(&Client::new(address, &other_token).call("GET", "/todos", &Value::Null))[0]["id"].clone();
        for (name, path) in [
            ("lists of all todos", "/todos"),
            ("searches", "/todos?q=dashboard&limit=50"),
            ("sorted lists of 50", "/todos?sort=-priority,title&limit=50"),
        ] {
            for method in ["GET", "PATCH"] {
                disturbed(address, name, (&english_token, path), (&other_token, method, &format!("/todos/{id}")));
            }
        }
    });
    measured.await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// One connection, which is kept.
struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Client {
    fn new(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(64 << 10, stream), token: token.to_owned() }
    }

    fn send(&mut self, method: &str, path: &str, body: &Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
    }

    /// The body of the answer, which must be a success.
    fn call(&mut self, method: &str, path: &str, body: &Value) -> Vec<u8> {
        self.send(method, path, body);
        let (mut line, mut length, mut body) = (String::new(), None, Vec::new());
        self.stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 2"), "{method} {path}: {line}");
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let header = line.trim_end().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse::<usize>().ok();
            }
            if header.is_empty() {
                break;
            }
        }
        if let Some(length) = length {
            body.resize(length, 0);
            self.stream.read_exact(&mut body).unwrap();
            return body;
        }
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let start = body.len();
            body.resize(start + length + 2, 0);
            self.stream.read_exact(&mut body[start..]).unwrap();
            body.truncate(start + length);
            if length == 0 {
                return body;
            }
        }
    }
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn text(random: &mut SmallRng, words: &[&str], length: usize) -> String {
    let mut text = String::new();
    while text.chars().count() < length {
        text = text + words[random.random_range(0..words.len())] + " ";
    }
    text.chars().take(length).collect()
}

fn fill(address: SocketAddr, token: &str, words: &str) {
    let (mut client, mut random) = (Client::new(address, token), SmallRng::seed_from_u64(1));
    let words: Vec<&str> = words.split_whitespace().collect();
    for _ in 0..TODOS / 100 {
        let create = |_| {
            let (title, description) = (text(&mut random, &words, 30), text(&mut random, &words, 100));
            json!({"op": "create", "todo": {"title": title, "description": description, "priority": random.random_range(0..5)}})
        };
        let operations: Vec<Value> = (0..100).map(create).collect();
        client.call("POST", "/batch", &json!({ "operations": operations }));
    }
}

/// Memory of this process that is not on the disk, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The middle one and the longest.
fn times(mut run: impl FnMut(), count: usize) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    times.sort();
    (times[count / 2], times[count - 1])
}

fn search(store: &Store, language: &str, owner: UserId, texts: &[&str]) {
    let page = |text: &str, sort: &str| {
        let filter = Filter { text: Some(Needle::new(text)), ..Filter::default() };
        let selection = Selection { filter, sort: Sort::parse(sort).unwrap(), limit: Some(50), after: None };
        let view = store.view(owner).now_or_never().unwrap().unwrap();
        select(&view.todos, &selection).total
    };
    let (before, begun) = (store.search_texts_size(), Instant::now());
    page(texts[0], "id");
    let (first, kept) = (begun.elapsed(), store.search_texts_size() - before);
    println!("{language}: the first search takes {first:.1?}, and {} bytes a todo from then on", kept / TODOS);
    for sort in ["id", "-priority,title"] {
        for text in texts {
            let (median, longest) = times(|| assert!(page(text, sort) <= TODOS), 51);
            println!(
                "{language}: a page of 50 by {sort} with {text:?}: {median:.1?}, at most {longest:.1?} ({} found)",
                page(text, sort)
            );
        }
    }
}

/// What lists take that nobody reads.
fn list_memory(address: SocketAddr, token: &str) {
    let before = resident();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::new(address, token)).collect();
    clients.iter_mut().for_each(|client| client.send("GET", "/todos", &Value::Null));
    std::thread::sleep(Duration::from_secs(1));
    println!("a list of all todos that nobody reads takes {} KiB", resident().saturating_sub(before) / 8 / 1024);
}

/// What two others do meanwhile.
#[derive(Clone, Copy)]
enum Others {
    /// Nothing.
    Calm,
    /// They count: what is left of two processors then is what is left beside anything that takes all of them.
    Count,
    /// They repeat a request without pause.
    Request,
}

/// How long somebody's requests take, depending on what two others do, in turns.
fn disturbed(address: SocketAddr, name: &str, others: (&str, &str), own: (&str, &str, &str)) {
    let mut latencies = [Vec::new(), Vec::new(), Vec::new()];
    let answered = AtomicUsize::new(0);
    for _ in 0..5 {
        for doing in [Others::Calm, Others::Count, Others::Request] {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let mut client = Client::new(address, others.0);
                        while !over.load(Ordering::Relaxed) {
                            match doing {
                                Others::Calm => return,
                                Others::Count => {}
                                Others::Request => {
                                    client.call("GET", others.1, &Value::Null);
                                    answered.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    });
                }
                latencies[doing as usize].extend(request_for_a_second(address, own));
                over.store(true, Ordering::Relaxed);
            });
        }
    }
    let [calm, count, busy] = latencies.map(|mut latencies| {
        latencies.sort();
        [latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]]
    });
    let ratio = |to: Duration| busy[1].as_secs_f64() / to.as_secs_f64();
    println!(
        "{}: median {:.2?}, p99 {:.2?}; beside two threads that count {:.2?}, {:.2?}; beside two clients with {name} ({} in 5 s) \
         {:.2?}, {:.2?}: p99 {:.1} times the first, {:.1} times the second",
        own.1,
        calm[0],
        calm[1],
        count[0],
        count[1],
        answered.into_inner(),
        busy[0],
        busy[1],
        ratio(calm[1]),
        ratio(count[1]),
    );
}

fn request_for_a_second(address: SocketAddr, (token, method, path): (&str, &str, &str)) -> Vec<Duration> {
    let mut client = Client::new(address, token);
    let (until, mut latencies, mut completed) = (Instant::now() + Duration::from_secs(1), Vec::new(), false);
    while Instant::now() < until {
        completed = !completed;
        let body = if method == "GET" { Value::Null } else { json!({ "completed": completed }) };
        let begun = Instant::now();
        client.call(method, path, &body);
        latencies.push(begun.elapsed());
        // A user's requests come when they come, not when the last one is answered.
        std::thread::sleep(Duration::from_millis(1));
    }
    latencies
}
