//! Events that the sidecar refuses or does not answer, alone among good ones: what parks, what an operator does then.
//!
//! The real daprd can't be made to refuse one event and take the others, so a proxy stands before it: it answers what a
//! test says for chosen todos and passes everything else on.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::order::{all_arrived, versions_in_order};
use crate::stack::{Client, Event, PATIENCE, Stack};

/// What happens to the publishes of a todo that does not just pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// 500, as daprd answers what Kafka will never take.
    Refused,
    /// No answer while it lasts.
    Held,
}

struct Shared {
    sidecar: String,
    http: reqwest::Client,
    /// By todo.
    fates: watch::Sender<HashMap<i64, Fate>>,
    /// Events that were not passed on at once, in order.
    stopped: Mutex<Vec<String>>,
}

/// Stands before the sidecar.
struct Proxy {
    url: String,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

impl Proxy {
    fn start(sidecar_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            sidecar: format!("http://127.0.0.1:{sidecar_port}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            fates: watch::Sender::default(),
            stopped: Mutex::default(),
        });
        let data = web::Data::from(Arc::clone(&shared));
        let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(pass)));
        let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, shared, handle }
    }

    fn set(&self, todo: i64, fate: Fate) {
        self.shared.fates.send_modify(|fates| _ = fates.insert(todo, fate));
    }

    fn heal(&self, todo: i64) {
        self.shared.fates.send_modify(|fates| _ = fates.remove(&todo));
    }

    /// How often this event was not passed on at once.
    fn stopped(&self, event: &str) -> usize {
        self.shared.stopped.lock().unwrap().iter().filter(|id| *id == event).count()
    }
}

async fn pass(request: HttpRequest, body: web::Bytes, shared: web::Data<Shared>) -> HttpResponse {
    if request.path() == "/v1.0/publish/kafka-pubsub/todos" {
        let event: Value = serde_json::from_slice(&body).unwrap();
        let todo = event["data"]["id"].as_i64().unwrap();
        let mut fates = shared.fates.subscribe();
        let fate = fates.borrow_and_update().get(&todo).copied();
        if fate.is_some() {
            shared.stopped.lock().unwrap().push(event["id"].as_str().unwrap().to_owned());
        }
        match fate {
            None => {}
            Some(Fate::Refused) => {
                return HttpResponse::InternalServerError()
                    .json(json!({"errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE", "message": "refused for this test"}));
            }
            Some(Fate::Held) => {
                fates.wait_for(|fates| fates.get(&todo) != Some(&Fate::Held)).await.unwrap();
            }
        }
    }
    let url = format!("{}{}", shared.sidecar, request.uri());
    let mut passed = shared.http.request(request.method().as_str().parse().unwrap(), url).body(body);
    for (name, value) in
        request.headers().iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
    {
        passed = passed.header(name.as_str(), value.as_bytes());
    }
    match passed.send().await {
        Ok(answer) => {
            let mut response = HttpResponse::build(StatusCode::from_u16(answer.status().as_u16()).unwrap());
            if let Some(content_type) = answer.headers().get("content-type") {
                response.content_type(content_type.to_str().unwrap());
            }
            response.body(answer.bytes().await.unwrap_or_default())
        }
        Err(problem) => HttpResponse::BadGateway().body(problem.to_string()),
    }
}

/// A stack whose service reaches its sidecar through a proxy.
fn started() -> (Stack, Proxy) {
    let mut stack = Stack::new();
    let proxy = Proxy::start(stack.sidecar_port());
    stack.service_env = vec![("DAPR_HTTP_ENDPOINT", proxy.url.clone())];
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    (stack, proxy)
}

/// A client, and how many changes each todo has had.
struct Changes {
    client: Client,
    made: BTreeMap<i64, i64>,
}

impl Changes {
    async fn create(&mut self, title: &str) -> i64 {
        let id = self.client.create(title).await;
        self.made.insert(id, 1);
        id
    }

    async fn change(&mut self, todo: i64) {
        let version = self.made.get_mut(&todo).unwrap();
        *version += 1;
        let body = json!({"title": format!("version {version}")});
        assert_eq!(self.client.send("PUT", &format!("/todos/{todo}"), Some(body)).await.0, 200);
    }

    async fn change_all(&mut self, todos: &[i64]) {
        for todo in todos {
            self.change(*todo).await;
        }
    }

    /// Changes the good todos again and again until `holds` says so: a refusal counts only with another's success.
    async fn change_until(&mut self, good: &[i64], mut holds: impl AsyncFnMut(&Client) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.client).await {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
            self.change_all(good).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What has been made of these todos.
    fn of(&self, todos: &[i64]) -> BTreeMap<i64, i64> {
        todos.iter().map(|todo| (*todo, self.made[todo])).collect()
    }
}

async fn parked(client: &Client) -> Vec<String> {
    let (status, events) = client.send("GET", "/admin/events/parked", None).await;
    assert_eq!(status, 200, "{events}");
    events.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn operate(client: &Client, event: &str, what: &str) {
    let (status, answer) = client.send("POST", &format!("/v1/admin/events/{event}/{what}"), None).await;
    assert_eq!((status, answer), (200, json!({"events": 1})));
}

async fn metric(client: &Client, series: &str) -> f64 {
    let text = client.text("/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} is not in:\n{text}")).parse().unwrap()
}

async fn metric_becomes(client: &Client, series: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = metric(client, series).await;
        if found == value {
            return;
        }
        assert!(Instant::now() < deadline, "{series} is {found}, not {value}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The versions of a todo in Kafka, in order, with repetitions.
fn versions(events: &[Event], todo: i64) -> Vec<i64> {
    events.iter().filter(|event| event.number("id") == todo).map(|event| event.number("version")).collect()
}

const PENDING: &str = "todo_backend_outbox_pending_events";
const PARKED: &str = "todo_backend_outbox_parked_events";

#[actix_web::test]
async fn a_refused_event_parks_alone_and_an_operator_decides() {
    let (mut stack, proxy) = started();
    let mut changes = Changes { client: stack.client("admin", "admin123").await, made: BTreeMap::new() };
    let mut good = Vec::new();
    for title in ["a", "b", "c", "d"] {
        good.push(changes.create(title).await);
    }
    let poison = changes.create("poison").await;
    stack.events_until(|events| all_arrived(events, &changes.made)).await;

    // One todo's second event is refused for ever; the others go on, and it parks alone.
    proxy.set(poison, Fate::Refused);
    changes.change(poison).await;
    let event = format!("{poison}-2");
    changes.change_until(&good, async |client| parked(client).await == [event.as_str()]).await;
    assert_eq!(metric(&changes.client, PARKED).await, 1.0);
    let tries = proxy.stopped(&event);
    assert!(tries >= 5, "parked after {tries} refusals");
    // Its later changes wait behind it, and nothing tries them.
    changes.change(poison).await;
    changes.change(poison).await;
    changes.change_all(&good).await;
    let events = stack.events_until(|events| all_arrived(events, &changes.of(&good))).await;
    assert_eq!(versions(&events, poison), [1]);
    metric_becomes(&changes.client, PENDING, 2.0).await;
    assert_eq!((proxy.stopped(&event), proxy.stopped(&format!("{poison}-3"))), (tries, 0));

    // That survives a SIGKILL.
    stack.service().kill();
    stack.start_service();
    changes.client = stack.client("admin", "admin123").await;
    changes.change_all(&good).await;
    stack.events_until(|events| all_arrived(events, &changes.of(&good))).await;
    assert_eq!(parked(&changes.client).await, [event.as_str()]);
    metric_becomes(&changes.client, PENDING, 2.0).await;
    assert_eq!(metric(&changes.client, PARKED).await, 1.0);
    assert_eq!((proxy.stopped(&event), proxy.stopped(&format!("{poison}-3"))), (tries, 0));

    // A retry too early parks it again.
    operate(&changes.client, &event, "retry").await;
    changes.change_until(&good, async |client| parked(client).await == [event.as_str()]).await;
    assert!(proxy.stopped(&event) > tries);
    // Healed and retried: everything arrives, in version order.
    proxy.heal(poison);
    operate(&changes.client, &event, "retry").await;
    let events = stack.events_until(|events| all_arrived(events, &changes.made)).await;
    assert_eq!(versions(&events, poison), [1, 2, 3, 4]);
    assert_eq!(versions_in_order(&events), changes.made);
    assert_eq!(parked(&changes.client).await, [""; 0]);
    metric_becomes(&changes.client, PENDING, 0.0).await;
    assert_eq!(metric(&changes.client, PARKED).await, 0.0);

    // Another one is given up: its later events arrive without it.
    let lost = changes.create("second poison").await;
    stack.events_until(|events| all_arrived(events, &changes.made)).await;
    proxy.set(lost, Fate::Refused);
    for _ in 0..3 {
        changes.change(lost).await;
    }
    let event = format!("{lost}-2");
    changes.change_until(&good, async |client| parked(client).await == [event.as_str()]).await;
    proxy.heal(lost);
    operate(&changes.client, &event, "skip").await;
    let events = stack.events_until(|events| all_arrived(events, &changes.made)).await;
    assert_eq!(versions(&events, lost), [1, 3, 4]);
    metric_becomes(&changes.client, PENDING, 0.0).await;

    // Everything once more: all but the one that was given up, each todo's in order.
    let before = events;
    let body = json!({"username": "admin", "from_revision": 1});
    let (status, answer) = changes.client.send("POST", "/admin/events/republish", Some(body)).await;
    let made: i64 = changes.made.values().sum();
    assert_eq!((status, answer), (200, json!({"events": made - 1})));
    let again = usize::try_from(made - 1).unwrap();
    let events = stack.events_until(|events| events.len() >= before.len() + again).await;
    metric_becomes(&changes.client, PENDING, 0.0).await;
    for (todo, last) in &changes.made {
        let once: Vec<i64> = (1..=*last).filter(|version| (*todo, *version) != (lost, 2)).collect();
        let (first, second) = (versions(&before, *todo), versions(&events, *todo));
        assert_eq!(second[first.len()..], once, "todo {todo} once more");
    }
    // And the service works on.
    changes.change_all(&good).await;
    changes.change(lost).await;
    stack.events_until(|events| all_arrived(events, &changes.made)).await;
    metric_becomes(&changes.client, PENDING, 0.0).await;
    proxy.handle.stop(false).await;
}

#[actix_web::test]
async fn an_event_without_an_answer_never_parks_and_arrives_later() {
    let (stack, proxy) = started();
    let mut changes = Changes { client: stack.client("admin", "admin123").await, made: BTreeMap::new() };
    let (good, slow) = (changes.create("good").await, changes.create("slow").await);
    stack.events_until(|events| all_arrived(events, &changes.made)).await;
    proxy.set(slow, Fate::Held);
    changes.change(slow).await;
    changes.change(slow).await;
    // The relay gives up on the answer after 15 s; the others do not wait for that.
    let unknown = r#"todo_backend_publishes_total{result="unknown"}"#;
    let started = Instant::now();
    changes.change(good).await;
    stack.events_until(|events| all_arrived(events, &changes.of(&[good]))).await;
    assert_eq!(metric(&changes.client, unknown).await, 0.0, "after {:?}", started.elapsed());
    changes.change_until(&[good], async |client| metric(client, unknown).await >= 1.0).await;
    assert!(started.elapsed() > Duration::from_secs(10), "{:?}", started.elapsed());
    // Tried again while the others go on.
    let event = format!("{slow}-2");
    changes.change_until(&[good], async |_| proxy.stopped(&event) >= 2).await;
    assert_eq!(parked(&changes.client).await, [""; 0]);
    assert_eq!(metric(&changes.client, r#"todo_backend_publishes_total{result="refused"}"#).await, 0.0);
    proxy.heal(slow);
    let events = stack.events_until(|events| all_arrived(events, &changes.made)).await;
    assert_eq!(versions_in_order(&events), changes.made);
    metric_becomes(&changes.client, PENDING, 0.0).await;
    assert_eq!(metric(&changes.client, PARKED).await, 0.0);
    proxy.handle.stop(false).await;
}
