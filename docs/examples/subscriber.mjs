// Prints every change of every todo once. Needs only Node; how to run it next to the service: docs/events.md.
import { createServer } from "node:http";

const subscriptions = [{ pubsubname: "kafka-pubsub", topic: "todos", route: "/todos" }];
const types = ["todo.created", "todo.updated", "todo.deleted", "todo.restored"]; // others are ignored: more may come
const seen = new Map(); // the last version of each (source, todo); keep it with your own data, so that a restart knows it

function take({ source, subject, type, id, data: { version, title } }) {
  const todo = `${source} ${subject}`;
  if (version <= seen.get(todo)) return; // delivered before
  if (types.includes(type)) console.log(type, id, JSON.stringify(title));
  seen.set(todo, version);
}

createServer(async (request, response) => {
  let [status, answer, body] = [200, { status: "SUCCESS" }, ""]; // after any other answer but DROP, Dapr delivers again
  try {
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    if (request.url === "/dapr/subscribe") answer = subscriptions;
    else if (request.url === "/todos") take(JSON.parse(body));
    else status = 404;
  } catch {
    answer = { status: "DROP" }; // it is no event of the service
  }
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
}).listen(process.env.APP_PORT ?? 6001, "127.0.0.1");
