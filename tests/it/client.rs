//! Requests and answers.

use std::io::Read;
use std::net::TcpStream;
use std::sync::LazyLock;
use todo_backend::events::dapr::http_client;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

/// Keeps no connections: a pool that outlives a test would hold on to the test's runtime.
pub static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let redirects = reqwest::redirect::Policy::none();
    http_client().redirect(redirects).pool_max_idle_per_host(0).build().unwrap()
});

/// Reads until the server closes, or until the body is as long as the answer says.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let answer = parse(&bytes);
        let complete =
            |answer: &Answer| answer.header("content-length").unwrap_or_default() == answer.body.len().to_string();
        if count == 0 || answer.as_ref().is_some_and(complete) {
            return answer.expect("an answer");
        }
    }
}

/// As much of an answer as there is, once its head is complete.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Some(Answer { status, headers, body: body.to_owned() })
}

/// Where a reference leads from a path.
fn resolved(path: &str, reference: &str) -> String {
    let base = reqwest::Url::parse(&format!("http://service{path}")).unwrap();
    let target = base.join(reference).unwrap();
    target.as_str().strip_prefix("http://service").expect("the same origin").to_owned()
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// A header's value; `None` if it was not sent.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} is sent twice: {:?}", self.headers);
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Where `Location` leads from the path of the request (RFC 9110, section 10.2.2).
    #[track_caller]
    pub fn location_from(&self, path: &str) -> String {
        resolved(path, self.header("location").expect("a location"))
    }

    /// Where `Link` leads from the path of the request, if there is a next page (RFC 8288).
    #[track_caller]
    pub fn next_from(&self, path: &str) -> Option<String> {
        let link = self.header("link")?.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        Some(resolved(path, link.expect("a link to the next page")))
    }

    /// The kinds of the errors of a 422, each with the last step of where it is.
    #[track_caller]
    pub fn problems(&self) -> Vec<String> {
        assert_eq!(self.status, 422, "{self:?}");
        let errors = self.json()["detail"].as_array().unwrap().clone();
        let place = |error: &Value| match error["loc"].as_array().unwrap().last().unwrap() {
            Value::String(name) => name.clone(),
            index => index.to_string(),
        };
        errors.iter().map(|error| format!("{} {}", error["type"].as_str().unwrap(), place(error))).collect()
    }

    /// Asserts an error with exactly this `detail`.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, detail: impl Into<Value>) {
        assert_eq!((self.status, self.json()), (status, json!({ "detail": detail.into() })));
        if status == 401 {
            let challenge = self.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer"), "{self:?}");
        }
    }
}

/// Shorter ways to send a request.
pub trait RequestExt {
    /// A body that is said to be JSON, whatever it is.
    fn json_bytes(self, body: impl Into<reqwest::Body>) -> RequestBuilder;
    async fn answer(self) -> Answer;
    async fn send_json(self, body: Value) -> Answer;
    async fn send_form(self, encoded: &str) -> Answer;
}

impl RequestExt for RequestBuilder {
    fn json_bytes(self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.header("Content-Type", "application/json").body(body)
    }

    async fn answer(self) -> Answer {
        let response = self.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
        Answer { status, headers, body }
    }

    async fn send_json(self, body: Value) -> Answer {
        self.json_bytes(body.to_string()).answer().await
    }

    async fn send_form(self, encoded: &str) -> Answer {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(encoded.to_owned()).answer().await
    }
}
