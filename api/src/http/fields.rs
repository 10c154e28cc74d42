//! Reading JSON bodies field by field, so that every wrong field gets a pointer and a code of its own.

use serde_json::{Map, Value};

use crate::problem::{FieldError, Problem};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<FieldError>);

impl Findings {
    pub(crate) fn add(&mut self, pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, code, detail));
    }

    /// `Ok` if nothing was wrong.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// A JSON object that is being taken apart.
#[derive(Debug)]
pub(crate) struct Object {
    fields: Map<String, Value>,
    pointer: String,
}

impl Object {
    /// `value` as an object at `pointer` (`""`: the body itself).
    pub(crate) fn new(value: Value, pointer: impl Into<String>, findings: &mut Findings) -> Option<Self> {
        let pointer = pointer.into();
        let Value::Object(fields) = value else {
            findings.add(pointer, "invalid_type", "an object is expected");
            return None;
        };
        Some(Self { fields, pointer })
    }

    pub(crate) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// The field, if it is there and not null.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// The field; missing or null is wrong.
    pub(crate) fn required(&mut self, name: &str, findings: &mut Findings) -> Option<Value> {
        let value = self.optional(name);
        if value.is_none() {
            findings.add(self.pointer(name), "required", "this field is required");
        }
        value
    }

    /// What is left is unknown.
    pub(crate) fn finish(self, findings: &mut Findings) {
        for name in self.fields.keys() {
            findings.add(self.pointer(name), "unknown_field", "there is no such field");
        }
    }
}

/// A text of `min..=max` characters, without control characters.
pub(crate) fn text(
    value: &Value,
    pointer: &str,
    (min, max): (usize, usize),
    findings: &mut Findings,
) -> Option<String> {
    let Some(text) = value.as_str() else {
        findings.add(pointer, "invalid_type", "a text is expected");
        return None;
    };
    let fits = (min..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits && text.trim() == text {
        Some(text.to_owned())
    } else {
        let detail = format!("{min} to {max} characters, no control characters, no blanks at its ends");
        findings.add(pointer, "invalid_text", detail);
        None
    }
}

/// A whole number in `min..=max`.
pub(crate) fn integer(
    value: &Value,
    pointer: &str,
    (min, max): (i64, i64),
    findings: &mut Findings,
) -> Option<i64> {
    let Value::Number(number) = value else {
        findings.add(pointer, "invalid_type", "a whole number is expected");
        return None;
    };
    if number.is_f64() {
        findings.add(pointer, "invalid_type", "a whole number is expected");
        return None;
    }
    match number.as_i64().filter(|number| (min..=max).contains(number)) {
        Some(number) => Some(number),
        None => {
            findings.add(pointer, "out_of_range", format!("{min} to {max}"));
            None
        }
    }
}
