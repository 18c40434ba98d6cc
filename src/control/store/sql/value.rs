//! Values as they go into statements and come out of rows.

use super::super::StoreError;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One row of a result; columns are taken by their place in the SELECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Row(pub(super) Vec<Value>);

impl Row {
    pub(in crate::store) fn get<T: FromValue>(&self, column: usize) -> Result<T, StoreError> {
        let value = self.0.get(column).unwrap_or(&Value::Null);
        T::from_value(value).ok_or(StoreError::Column { column, wanted: T::WANTED })
    }

    pub(in crate::store) fn into_values(self) -> Vec<Value> {
        self.0
    }
}

macro_rules! from_int {
    ($($type:ty),*) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::Int(value as i64)
            }
        })*
    };
}
from_int!(i64, u64, u32, u8, bool, usize);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<[u8; 32]> for Value {
    fn from(value: [u8; 32]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<T> From<Option<T>> for Value
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

impl<'a> From<&'a Option<String>> for Value {
    fn from(value: &'a Option<String>) -> Self {
        value.as_deref().map_or(Self::Null, Self::from)
    }
}

/// What a column can be read as.
pub(in crate::store) trait FromValue: Sized {
    const WANTED: &'static str;

    /// `None`: the column holds something else.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! to_int {
    ($($type:ty),*) => {
        $(impl FromValue for $type {
            const WANTED: &'static str = stringify!($type);

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Int(number) => Some(*number as $type),
                    _ => None,
                }
            }
        })*
    };
}
to_int!(i64, u64, u32, u8);

impl FromValue for bool {
    const WANTED: &'static str = "bool";

    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl FromValue for String {
    const WANTED: &'static str = "text";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromValue for Vec<u8> {
    const WANTED: &'static str = "bytes";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl FromValue for [u8; 32] {
    const WANTED: &'static str = "32 bytes";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const WANTED: &'static str = T::WANTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
