"""Prints every change of every todo once. Needs only Python; how to run it next to the service: docs/events.md."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SUBSCRIPTIONS = [{"pubsubname": "kafka-pubsub", "topic": "todos", "route": "/todos"}]
TYPES = {"todo.created", "todo.updated", "todo.deleted", "todo.restored"}  # others are ignored: more may come
seen = {}  # the last version of each (source, todo); keep it with your own data, so that a restart knows it


def take(event):
    todo, version = (event["source"], event["subject"]), event["data"]["version"]
    if version <= seen.get(todo, 0):
        return  # delivered before
    if event["type"] in TYPES:
        print(event["type"], event["id"], json.dumps(event["data"]["title"], ensure_ascii=False), flush=True)
    seen[todo] = version


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, SUBSCRIPTIONS) if self.path == "/dapr/subscribe" else self.answer(404, None)

    def do_POST(self):
        try:
            take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.answer(200, {"status": "SUCCESS"})  # after any other answer but DROP, Dapr delivers again
        except (ValueError, KeyError, TypeError):
            self.answer(200, {"status": "DROP"})  # it is no event of the service

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        """No line for each request."""


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("APP_PORT", 6002))), Handler).serve_forever()
