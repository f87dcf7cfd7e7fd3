"""validate.py SCHEMA: reads JSON values from standard input, one a line, and prints for each `valid` or what is wrong with it."""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for line in sys.stdin:
    problems = [f"{error.json_path}: {error.message[:200]!r}" for error in validator.iter_errors(json.loads(line))]
    print("; ".join(problems) or "valid")
