//! Types of other packages in the document: described by their own JSON Schema, so that there is one truth.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// `T` as its own JSON Schema says.
#[derive(Debug)]
pub(crate) struct Described<T>(PhantomData<T>);

/// Names for handlers and models to use as `value_type`.
pub(crate) mod wire {
    use super::Described;

    pub(crate) type Money = Described<domain_types::Money>;
    pub(crate) type OrderState = Described<schemas::OrderState>;
    pub(crate) type PaymentState = Described<schemas::PaymentState>;
    pub(crate) type ProductKind = Described<schemas::ProductKind>;
    pub(crate) type Quantity = Described<domain_types::Quantity>;
    pub(crate) type Reason = Described<schemas::Reason>;
    pub(crate) type RequestKind = Described<schemas::RequestKind>;
    pub(crate) type RequestOutcome = Described<schemas::RequestOutcome>;
    pub(crate) type Sale = Described<schemas::Sale>;
    pub(crate) type Sku = Described<domain_types::Sku>;
    pub(crate) type Timestamp = Described<domain_types::Timestamp>;
}

impl<T: JsonSchema> ToSchema for Described<T> {
    fn name() -> Cow<'static, str> {
        T::schema_name()
    }
}

impl<T: JsonSchema> PartialSchema for Described<T> {
    fn schema() -> RefOr<Schema> {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        if let Some(root) = schema.as_object_mut() {
            root.remove("title");
        }
        words(&mut schema);
        // Both speak JSON Schema 2020-12; what the document's own types have no word for would be left out.
        RefOr::T(serde_json::from_value(schema).unwrap_or_default())
    }
}

/// Turns each choice of constants into an `enum`, which is what generators of clients understand.
fn words(schema: &mut Value) {
    let choices = schema.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    let constants: Vec<Value> = choices.iter().filter_map(|choice| choice.get("const").cloned()).collect();
    if !choices.is_empty() && constants.len() == choices.len() {
        let mut said = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (choice, constant) in choices.iter().zip(&constants) {
            if let (Some(text), Some(word)) = (choice["description"].as_str(), constant.as_str()) {
                said.push_str(&format!("\n- `{word}`: {text}"));
            }
        }
        *schema = json!({"type": "string", "enum": constants, "description": said});
    }
    match schema {
        Value::Array(values) => values.iter_mut().for_each(words),
        Value::Object(fields) => fields.values_mut().for_each(words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    #[test]
    fn types_of_other_packages_keep_what_their_schemas_say() {
        assert_eq!(schema::<wire::Sku>()["pattern"], "^[A-Z0-9-]{1,40}$");
        assert_eq!(schema::<wire::Quantity>()["maximum"], domain_types::MAX_QUANTITY);
        assert_eq!(schema::<wire::Money>()["required"], json!(["amount", "currency"]));
        let states = schema::<wire::OrderState>();
        assert_eq!(states["enum"].as_array().unwrap().len(), schemas::OrderState::ALL.len());
        let sale = schema::<wire::Sale>();
        assert_eq!(sale["additionalProperties"], false);
        assert!(sale["properties"]["daily"].to_string().contains("time_zone"), "{sale}");
        assert_eq!(wire::Sale::name(), "Sale");
    }
}
