// asyncapi.mjs FILE: says what is wrong with an AsyncAPI document and the files it refers to, and ends with status 1 if anything is;
// otherwise prints the payloads of its examples, one a line.
import { fromFile, Parser } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
// 0 is an error, 1 a warning; below that is advice, such as a newer version of AsyncAPI.
const problems = diagnostics.filter(({ severity }) => severity <= 1);
for (const { path, message } of problems) console.error(`${path.join(".")}: ${message}`);
if (!document || problems.length > 0) process.exit(1);
for (const message of document.messages().all()) {
  for (const example of message.examples().all()) console.log(JSON.stringify(example.payload()));
}
