//! The OpenAPI document of the API. It derives from the types of requests and results.
//!
//! Owns what these types do not contain: paths, keys and statuses. Describes only what the table of
//! methods contains.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

use super::batch::{Batch, BatchResult};
use super::methods::{Method, methods};

/// Introduction of the document.
const INTRODUCTION: &str = "Each method is a POST of a JSON object. Requests return HTTP 200 with \
     `result` or `error`. With `http_api.error_mode: transport`, or with the request header \
     `X-Centrifugo-Error-Mode: transport`, errors use HTTP status codes.";

/// The OpenAPI document of the API at a path.
pub fn document(prefix: &str) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(tidy))
        .into_generator();
    let mut paths = Map::new();
    for Method { name, summary, request, answer, .. } in methods(&mut generator) {
        let mut operation = operation(name, summary, &request, &answer);
        if let Some(responses) = operation["responses"].as_object_mut() {
            for (status, code) in [(404, "102 or 104"), (416, "112"), (500, "100 or 106")] {
                responses.insert(status.to_string(), error(code));
            }
        }
        paths.insert(format!("/{name}"), json!({ "post": operation }));
    }
    let request = generator.subschema_for::<Batch>();
    let answer = generator.subschema_for::<BatchResult>();
    let batch = operation("batch", "Runs several commands in one request.", &request, &answer);
    paths.insert("/batch".to_owned(), json!({ "post": batch }));
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Drumline",
            "description": INTRODUCTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": prefix }],
        "security": [{ "key": [] }, { "authorization": [] }, { "query": [] }],
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": keys() },
    })
}

/// The places of a request that may contain the API key.
fn keys() -> Value {
    json!({
        "key": {
            "type": "apiKey", "in": "header", "name": "X-API-Key",
            "description": "`http_api.key` of the configuration.",
        },
        "authorization": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "The word `apikey`, a space and `http_api.key`.",
        },
        "query": {
            "type": "apiKey", "in": "query", "name": "api_key",
            "description": "`http_api.key`, percent-encoded.",
        },
    })
}

/// Methods whose request may be empty. They also accept `null`, as in Centrifugo.
const EMPTY_REQUESTS: [&str; 2] = ["channels", "info"];

fn operation(name: &str, summary: &str, request: &Schema, answer: &Schema) -> Value {
    let text = |description: &str| {
        let content = json!({ "text/plain": { "schema": { "type": "string" } } });
        json!({ "description": description, "content": content })
    };
    let mut malformed = error("107 or 108");
    malformed["description"] =
        "The body is not a valid request (a text names the cause), or errors use HTTP status codes \
         and the error is 107 or 108"
            .into();
    malformed["content"]["text/plain"] = json!({ "schema": { "type": "string" } });
    let mut request = json!(request);
    if EMPTY_REQUESTS.contains(&name) {
        request = json!({ "anyOf": [request, { "type": "null" }] });
    }
    json!({
        "operationId": name,
        "summary": summary,
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": request } },
        },
        "responses": {
            "200": {
                "description": "The result or an error",
                "content": { "application/json": { "schema": answer } },
            },
            "400": malformed,
            "401": text("The API key is missing or wrong"),
            "408": text("The body did not arrive in time"),
            "413": text("The body is too large"),
        },
    })
}

/// Response for errors with these codes, if errors use HTTP status codes.
fn error(codes: &str) -> Value {
    json!({
        "description": format!("Error {codes}, if errors use HTTP status codes"),
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

/// Tidies a schema: adds the range of numbers, which many tools do not derive from the format, and
/// removes line breaks and null defaults, which come from the source code.
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint16") => (json!(0), json!(u16::MAX)),
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint64") => (json!(0), json!(u64::MAX)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        _ => return,
    };
    schema.insert("minimum".to_owned(), least);
    schema.insert("maximum".to_owned(), most);
}
