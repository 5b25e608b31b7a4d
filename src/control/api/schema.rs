//! The shapes of a batch's commands and answers in the API's description.
//!
//! Owns nothing: both follow from the table of methods.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Map;

use super::methods::methods;
use super::reply::ApiError;

/// A command of a batch.
pub(super) struct BatchCommand;

/// An answer of a batch.
pub(super) struct BatchReply;

impl JsonSchema for BatchCommand {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let methods = methods(generator).into_iter();
        let properties = methods.map(|method| (method.name.to_owned(), method.request.to_value()));
        json_schema!({
            "description": "A request under its method's name.",
            "type": "object",
            "properties": properties.collect::<Map<_, _>>(),
        })
    }
}

impl JsonSchema for BatchReply {
    fn schema_name() -> Cow<'static, str> {
        "Reply".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let methods = methods(generator).into_iter();
        let results = methods.map(|method| (method.name.to_owned(), method.result.to_value()));
        let mut properties: Map<_, _> = results.collect();
        properties.insert("error".to_owned(), generator.subschema_for::<ApiError>().to_value());
        json_schema!({
            "description": "A result under its method's name, or an error.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}
