//! How often something can be tried: what is limited, what the answer says, and who is never kept out.

use futures_util::future::join_all;
use serde_json::json;

use crate::app::{TestApp, eventually, with_app, with_settings};
use crate::client::{Answer, RequestExt};

/// Clients are told apart by what this machine, a proxy, says about them.
const BEHIND_A_PROXY: [(&str, &str); 1] = [("TRUSTED_PROXIES", "127.0.0.1")];
const HOME: &str = "198.51.100.7";

impl TestApp {
    async fn login_from(&self, address: &str, username: &str, password: &str) -> Answer {
        let call = self.post("/auth/login").header("X-Forwarded-For", address);
        call.send_json(json!({"username": username, "password": password})).await
    }

    /// Wrong passwords from an address until it is limited, at most 100; returns how many were checked, and the answer
    /// that limits.
    async fn guess(&self, address: &str, username: &str) -> (usize, Answer) {
        for tried in 0..100 {
            let answer = self.login_from(address, username, "wrong").await;
            if answer.status == 429 {
                return (tried, answer);
            }
            answer.assert_refused(401, "Invalid username or password");
        }
        panic!("100 guesses of {username} from {address}");
    }
}

/// Asserts that an answer says which limit is reached, and when to try again.
#[track_caller]
fn assert_limited(answer: &Answer, policy: &str, quota: u32, window: u64, wait: std::ops::RangeInclusive<u64>) {
    let seconds: u64 = answer.header("retry-after").expect("when to try again").parse().unwrap();
    assert!(wait.contains(&seconds), "{answer:?}");
    answer.assert_refused(429, format!("Too many requests; try again in {seconds} s"));
    let policy_field = format!("\"{policy}\";q={quota};w={window}");
    assert_eq!(answer.header("ratelimit-policy"), Some(policy_field.as_str()));
    assert_eq!(answer.header("ratelimit"), Some(format!("\"{policy}\";r=0;t={seconds}").as_str()));
}

#[actix_web::test]
async fn strangers_who_guess_are_limited_and_the_owner_still_logs_in() {
    with_settings(&BEHIND_A_PROXY, async |app| {
        assert_eq!(app.login_from(HOME, "demo", "demo123").await.status, 200);
        // From several addresses: by account.
        let (mut checked, mut limited) = (0, None);
        for n in 0..4 {
            for _ in 0..9 {
                let answer = app.login_from(&format!("203.0.113.{n}"), "demo", "wrong").await;
                if answer.status == 429 {
                    limited = Some(answer);
                } else {
                    checked += 1;
                }
            }
        }
        assert!((20..=21).contains(&checked), "{checked}");
        assert_limited(&limited.unwrap(), "logins-to-account", 20, 600, 1..=31);
        let answer = app.login_from("203.0.113.200", "demo", "demo123").await;
        assert_eq!(answer.status, 429, "a stranger, even with the right password");
        for _ in 0..20 {
            assert_eq!(app.login_from(HOME, "demo", "demo123").await.status, 200, "where it logged in before");
        }
        assert_eq!(app.login_from("203.0.113.200", "user", "user123").await.status, 200, "another account");
        // Whoever guesses at home has a limit, too, which is not that of others.
        let (checked, answer) = app.guess(HOME, "demo").await;
        assert!((30..=33).contains(&checked), "{checked}");
        assert_limited(&answer, "logins-from-known-address", 30, 300, 1..=11);
        let series = r#"todo_backend_rate_limited_total{limit="logins-from-known-address"}"#;
        assert_eq!(app.metric(series).await, Some(1.0));
        assert_eq!(app.get("/todos").bearer_auth(app.token("demo")).answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn an_address_that_guesses_many_names_is_limited_whether_they_exist_or_not() {
    with_settings(&BEHIND_A_PROXY, async |app| {
        let mut statuses = Vec::new();
        for n in 0..34 {
            statuses.push(app.login_from("2001:db8:1:2::99", &format!("nobody{n}"), "wrong").await.status);
        }
        let checked = statuses.iter().filter(|status| **status == 401).count();
        assert!((30..=32).contains(&checked) && statuses[33] == 429, "{statuses:?}");
        let neighbour = app.login_from("2001:db8:1:2:ffff::1", "demo", "demo123").await;
        assert_limited(&neighbour, "logins-from-address", 30, 300, 1..=11);
        assert_eq!(app.login_from("2001:db8:1:3::99", "demo", "demo123").await.status, 200, "another /64");
        // A name that nobody has is limited as one that somebody has.
        let (mut checked, mut n) = (0, 0);
        while app.login_from(&format!("192.0.2.{n}"), "nobody", "wrong").await.status == 401 {
            (checked, n) = (checked + 1, n + 1);
        }
        assert!((20..=21).contains(&checked), "{checked}");
    })
    .await;
}

#[actix_web::test]
async fn right_passwords_are_not_limited_and_nobody_behind_an_unknown_proxy_is_limited_by_address() {
    with_app(async |app| {
        for n in 0..35 {
            let answer = app.login_from(&format!("203.0.113.{n}"), "demo", "demo123").await;
            assert_eq!(answer.status, 200, "{n}");
        }
        for n in 0..35 {
            let answer = app.login_from("203.0.113.1", &format!("nobody{n}"), "wrong").await;
            assert_eq!(answer.status, 401, "what this machine says about its clients is not believed");
        }
        assert_eq!(app.guess("203.0.113.1", "demo").await.1.status, 429, "but by account");
    })
    .await;
}

#[actix_web::test]
async fn a_password_that_is_asked_for_again_is_limited_by_account() {
    with_app(async |app| {
        let token = app.token("demo");
        let body = json!({"current_password": "wrong", "new_password": "a long and private sentence"});
        let try_it = || app.post("/auth/password").bearer_auth(&token).send_json(body.clone());
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(try_it().await.status);
        }
        assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 10, "{statuses:?}");
        assert_limited(&try_it().await, "confirmations", 10, 300, 1..=31);
        let delete = app.delete("/auth/me").bearer_auth(&token).send_json(json!({"password": "demo123"})).await;
        assert_eq!(delete.status, 429, "the same limit");
        assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn accounts_and_refreshes_are_limited() {
    with_settings(&BEHIND_A_PROXY, async |app| {
        let register = async |address: &str, n: usize| {
            let body = json!({"username": format!("new{n}"), "password": "a long and private sentence"});
            app.post("/auth/register").header("X-Forwarded-For", address).send_json(body).await
        };
        for n in 0..10 {
            assert_eq!(register(HOME, n).await.status, 201);
        }
        assert_limited(&register(HOME, 10).await, "registrations", 10, 600, 1..=61);
        assert_eq!(register("198.51.100.8", 10).await.status, 201);
        let login = app.post("/auth/token").send_form("grant_type=password&username=demo&password=demo123").await;
        let mut token = login.json()["refresh_token"].as_str().unwrap().to_owned();
        let refresh = async |token: &str| {
            app.post("/auth/token").send_form(&format!("grant_type=refresh_token&refresh_token={token}")).await
        };
        for _ in 0..30 {
            token = refresh(&token).await.json()["refresh_token"].as_str().unwrap().to_owned();
        }
        let mut answer = refresh(&token).await;
        while answer.status == 200 {
            token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
            answer = refresh(&token).await;
        }
        assert_limited(&answer, "refreshes", 30, 300, 1..=11);
        eventually("it logged nobody out", async || refresh(&token).await.status == 200).await;
    })
    .await;
}

#[actix_web::test]
async fn a_stolen_token_cannot_keep_its_owner_from_ending_it() {
    with_settings(&[("RATE_LIMIT_USER", "1")], async |app| {
        let token = app.token("demo");
        let flood = join_all((0..40).map(|_| app.get("/todos").bearer_auth(&token).answer())).await;
        assert!(flood.iter().any(|answer| answer.status == 429));
        assert_eq!(app.get("/auth/sessions").bearer_auth(&token).answer().await.status, 200);
        assert_eq!(app.post("/auth/logout-all").bearer_auth(&token).answer().await.status, 204);
        let admin = app.token("admin");
        let flood = join_all((0..40).map(|_| app.get("/admin/users").bearer_auth(&admin).answer())).await;
        assert!(flood.iter().any(|answer| answer.status == 429), "admins are limited, too");
    })
    .await;
}

#[actix_web::test]
async fn requests_are_limited_by_account_and_by_address() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_USER", "2"), ("RATE_LIMIT_ADDRESS", "5")];
    with_settings(&settings, async |app| {
        let list = |username: &str, address: &str| {
            app.get("/todos").bearer_auth(app.token(username)).header("X-Forwarded-For", address.to_owned()).answer()
        };
        let answers = join_all((0..40).map(|n| list("demo", &format!("203.0.113.{n}")))).await;
        let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!((10..=20).contains(&limited.len()), "{}", limited.len());
        assert_limited(limited[0], "requests-of-account", 20, 10, 1..=2);
        assert_eq!(list("user", "203.0.113.1").await.status, 200, "another account");
        let answers = join_all((0..80).map(|_| app.get("/nope").header("X-Forwarded-For", HOME).answer())).await;
        let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!((15..=30).contains(&limited.len()), "{}", limited.len());
        assert_limited(limited[0], "requests-from-address", 50, 10, 1..=2);
        let page = || app.get("/todos").header("X-Forwarded-For", HOME).header("Origin", "http://localhost:3000");
        let answers = join_all((0..60).map(|_| page().answer())).await;
        let limited = answers.iter().find(|answer| answer.status == 429).expect("one is limited");
        assert_eq!(limited.header("access-control-allow-origin"), Some("http://localhost:3000"));
        let events =
            (0..60).map(|_| app.post("/events/todos").header("X-Forwarded-For", HOME).json_bytes("{}").answer());
        assert!(join_all(events).await.iter().all(|answer| answer.status == 200), "so is the sidecar");
        for path in ["/health", "/health/live", "/health/ready", "/metrics", "/dapr/subscribe"] {
            let calls = (0..60).map(|_| app.get(path).header("X-Forwarded-For", HOME).answer());
            assert!(join_all(calls).await.iter().all(|answer| answer.status == 200), "{path} is exempt");
        }
    })
    .await;
}

#[actix_web::test]
async fn limits_of_passwords_can_be_switched_off() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("LOGIN_LIMITS", "False")];
    with_settings(&settings, async |app| {
        for n in 0..35 {
            assert_eq!(app.login_from(HOME, "demo", "wrong").await.status, 401, "{n}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_new_password_forgets_from_where_others_have_logged_in() {
    with_settings(&BEHIND_A_PROXY, async |app| {
        for thief in ["203.0.113.5", HOME] {
            assert_eq!(app.login_from(thief, "demo", "demo123").await.status, 200);
        }
        let change = json!({"current_password": "demo123", "new_password": "a long and private sentence"});
        let call = app.post("/auth/password").bearer_auth(app.token("demo")).header("X-Forwarded-For", HOME);
        assert_eq!(call.send_json(change).await.status, 200);
        let (checked, limited) = app.guess("203.0.113.5", "demo").await;
        assert!((20..=21).contains(&checked), "{checked}");
        assert_limited(&limited, "logins-to-account", 20, 600, 1..=31);
        let at_home = app.login_from(HOME, "demo", "a long and private sentence").await;
        assert_eq!(at_home.status, 200, "where it was changed, it is known");
    })
    .await;
}

/// Hashes that were computed since the start.
async fn hashes(app: &TestApp) -> f64 {
    app.metric("todo_backend_password_hash_duration_seconds_count").await.unwrap()
}

#[actix_web::test]
async fn every_login_costs_exactly_one_hash_whatever_is_wrong() {
    with_settings(&[("LOGIN_LIMITS", "False")], async |app| {
        let admin = app.token("admin");
        for (name, change) in [("disabled", Some(json!({"state": "disabled"}))), ("deleted", None)] {
            let made = json!({"username": name, "password": "a long and private sentence"});
            assert_eq!(app.post("/admin/users").bearer_auth(&admin).send_json(made).await.status, 201);
            let path = format!("/admin/users/{}", app.user_id(name));
            match change {
                Some(change) => drop(app.patch(&path).bearer_auth(&admin).send_json(change).await),
                None => drop(app.delete(&path).bearer_auth(&admin).answer().await),
            }
        }
        for (name, password, status) in [
            ("demo", "demo123", 200),
            ("demo", "wrong", 401),
            ("nobody", "wrong", 401),
            ("not a name \u{0} \u{1F600}", "wrong", 401),
            ("disabled", "a long and private sentence", 401),
            ("disabled", "wrong", 401),
            ("deleted", "a long and private sentence", 401),
            ("demo", "", 401),
        ] {
            let before = hashes(app).await;
            let answer = app.login_from(HOME, name, password).await;
            assert_eq!(answer.status, status, "{name} {password}");
            assert_eq!(hashes(app).await - before, 1.0, "{name} {password}");
            if !password.is_empty() {
                let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
                let password: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
                let form = format!("grant_type=password&username={name}&password={password}");
                let answer = app.post("/auth/token").send_form(&form).await;
                assert_eq!(answer.status, if status == 200 { 200 } else { 400 });
                assert_eq!(hashes(app).await - before, 2.0, "{name} {password}");
            }
        }
    })
    .await;
}
