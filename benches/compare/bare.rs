//! What actix-web itself can do: handlers that answer constants, without accounts, store or log.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};

/// The bodies that it answers.
#[derive(Clone)]
struct Bodies {
    todo: web::Bytes,
    list: web::Bytes,
}

/// Answers `todo` and `list`, which are JSON, on 127.0.0.1 until the process is killed.
pub async fn serve(port: u16, todo: String, list: String) {
    let bodies = Bodies { todo: todo.into(), list: list.into() };
    let app = move || {
        App::new()
            .app_data(web::Data::new(bodies.clone()))
            .route("/todos", web::get().to(async |bodies: web::Data<Bodies>| json(StatusCode::OK, &bodies.list)))
            .route(
                "/todos",
                web::post()
                    .to(async |_: web::Bytes, bodies: web::Data<Bodies>| json(StatusCode::CREATED, &bodies.todo)),
            )
            .route("/todos/1", web::get().to(async |bodies: web::Data<Bodies>| json(StatusCode::OK, &bodies.todo)))
            .route(
                "/todos/1",
                web::put().to(async |_: web::Bytes, bodies: web::Data<Bodies>| json(StatusCode::OK, &bodies.todo)),
            )
    };
    HttpServer::new(app).bind(("127.0.0.1", port)).unwrap().run().await.unwrap();
}

fn json(status: StatusCode, body: &web::Bytes) -> HttpResponse {
    HttpResponse::build(status).content_type(ContentType::json()).body(body.clone())
}
