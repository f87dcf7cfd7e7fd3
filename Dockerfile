# docker build -t todo-backend .
# The service alone; docker-compose.yml adds its sidecar and Kafka. What to set, and what each setting means: README.md.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
# The dependencies first, with stubs for the sources: this layer is made again only when Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY src src
# Cargo goes by modification times, and the copied ones may be older than the stubs' build.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked && mkdir /data

FROM debian:bookworm-slim
# The HTTP client wants certificate authorities at hand even when the sidecar is on plain http.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/todo-backend /usr/local/bin/
COPY --from=build --chown=10001:10001 /data /data
ENV HOST=0.0.0.0 DEBUG=False DATABASE_URL=sqlite:/data/todos.db
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Stopping takes up to 15 s when requests or publishes hang: docker stop -t 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["todo-backend", "healthcheck"]
ENTRYPOINT ["todo-backend"]
