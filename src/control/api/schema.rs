//! Schemas of the commands and replies of a batch.
//!
//! Owns no state: both schemas derive from the table of methods.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Map;

use super::methods::methods;
use super::reply::ApiError;

/// Schema of one command of a batch.
pub(super) struct BatchCommand;

/// Schema of one reply of a batch.
pub(super) struct BatchReply;

impl JsonSchema for BatchCommand {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let methods = methods(generator).into_iter();
        let properties = methods.map(|method| (method.name.to_owned(), method.request.to_value()));
        json_schema!({
            "description": "One request; the property name is the method.",
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
            "description": "One result, with the method as property name, or an error.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}
