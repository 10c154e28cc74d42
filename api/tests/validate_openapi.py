"""What the api says about itself, judged by tools that nobody here wrote.

  validate_openapi.py DOCUMENT             it is valid OpenAPI 3.1, and every example meets the schema it stands beside
  validate_openapi.py DOCUMENT EXCHANGES   each exchange (a JSON line: method, path, status, type, body) is documented
"""

import json
import sys

import jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

document = json.load(open(sys.argv[1]))


def validator(schema):
    # `$ref`s point at #/components/schemas.
    schema = {"components": document["components"], **schema}
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def operations():
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def contents():
    for name, operation in operations():
        yield from ((f"{name} body", content) for content in operation.get("requestBody", {}).get("content", {}).values())
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                yield f"{name} {status} {kind}", content


def check_document():
    OpenAPIV31SpecValidator(document).validate()
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            validator({"$ref": f"#/components/schemas/{name}"}).validate(example)
            seen += 1
    for name, content in contents():
        for example in content.get("examples", {}).values():
            validator(content["schema"]).validate(example["value"])
            seen += 1
    print(seen)


def check_exchange(exchange):
    operation = document["paths"][exchange["path"]][exchange["method"].lower()]
    response = operation["responses"].get(str(exchange["status"]))
    assert response is not None, "this status is not documented"
    for header in response.get("headers", {}):
        optional = header in ("Preference-Applied", "WWW-Authenticate")
        assert optional or header.lower() in exchange["headers"], f"{header} is missing"
    if "content" not in response:
        assert not exchange["body"], "a body where none is documented"
        return
    kind = (exchange["headers"].get("content-type") or "").split(";")[0]
    content = response["content"].get(kind)
    assert content is not None, f"{kind} is not documented"
    if not kind.endswith("json"):
        return
    validator(content["schema"]).validate(exchange["body"])
    if kind == "application/problem+json":
        assert exchange["body"]["code"] in content["examples"], f"{exchange['body']['code']} is not documented"


def check_exchanges(lines):
    wrong = []
    for number, line in enumerate(lines, 1):
        exchange = json.loads(line)
        try:
            check_exchange(exchange)
        except Exception as error:  # each is told, not only the first
            wrong.append(f"{exchange['method']} {exchange['path']} {exchange['status']}: {error}")
    if wrong:
        sys.exit("\n".join(wrong))
    print(number)


if len(sys.argv) == 2:
    check_document()
else:
    check_exchanges(open(sys.argv[2]))
